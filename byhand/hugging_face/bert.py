"""Between our BERT's parameter names and those of Hugging Face's files, of BERT and DistilBERT. Only names differ: matrices are (out, in)
there too."""

from collections.abc import Mapping

from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.bert import BertConfig
from byhand.hugging_face.bert_config import BERT_TYPES
from byhand.hugging_face.combined import same_values
from byhand.hugging_face.distilbert import DISTILBERT_HEADS, DISTILBERT_OTHERS, DISTILBERT_TIED, DISTILBERT_TYPES, distilbert_layers
from byhand.hugging_face.names import listed, renamed

# their copies in the masked language model's files -> what they are copies of
BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_OLD_ENDS = {"gamma": "weight", "beta": "bias"}           # of norms, in files older than PyTorch's names
# our class -> our name of what reads its encoder -> theirs
_HEADS: dict[str, dict[str, str]] = {
    "Bert": {}, "BertTokenClassifier": {"head": "classifier"},
    "BertSequenceClassifier": {"pooler": "bert.pooler.dense", "head": "classifier"},
    "BertMaskedLM": {"transform": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"},
}
_OTHERS = ("bert.pooler.", "cls.", "classifier.")         # how names begin that belong to no encoder


def bert_from_hugging_face(state: Mapping[str, NDArray], config: BertConfig, kind: str = "BertMaskedLM") -> dict[str, NDArray]:
    """The state of a transformers BERT under the names of our class `kind`, for its `load_state_dict`.

    Heads that `kind` has not (a pooler, the one that tells whether sentences follow each other) are left behind, so that the files of
    BertForPreTraining, as the published ones are, serve every class but the classifiers, whose heads they lack.

    Parameters
    ----------
    state    of a BertModel or one with a head, NumPy arrays
    config   says how many blocks there must be
    kind     Bert, BertMaskedLM, BertSequenceClassifier or BertTokenClassifier

    Raises
    ------
    ValueError   if `kind` is none of these, a name is missing or unknown, or the masked language model's table is not the token embedding

    Examples
    --------
    >>> config = BertConfig(vocabulary=5, max_length=8, d_model=4, n_layers=1, n_heads=2)
    >>> bert_names(config, "BertTokenClassifier")["head.weight"]
    'classifier.weight'
    """
    who = "bert_from_hugging_face"
    names = bert_names(config, kind)
    theirs = renamed(who, {name: array for name, array in state.items() if not name.endswith("embeddings.position_ids")},
                     lambda name: _modern(name, config))
    heads = _OTHERS if config.segments else DISTILBERT_OTHERS
    missing = sorted(set(names.values()) - theirs.keys())
    unknown = sorted(name for name in theirs.keys() - set(names.values()) if not name.startswith(heads))
    if missing or unknown:
        what = (BERT_TYPES if config.segments else DISTILBERT_TYPES)[kind]
        raise ValueError(f"{who} needs the names of a {what} of this config; {listed(missing, unknown)}")
    for name, tied in bert_tied(config).items():
        same = kind != "BertMaskedLM" or name not in theirs or same_values(theirs[name], theirs[tied])
        demand(who, same, f"{name} to be {tied}", **{"this model": "has one of its own"})
    return {ours: theirs[name] for ours, name in names.items()}


def bert_tied(config: BertConfig) -> dict[str, str]:
    """their copies in the masked language model's files -> what they are copies of."""
    return BERT_TIED if config.segments else DISTILBERT_TIED


def bert_to_hugging_face(state: Mapping[str, NDArray], config: BertConfig, kind: str = "BertMaskedLM") -> dict[str, NDArray]:
    """The way back: the state of our class `kind` under transformers' names, a tied head included.

    Raises
    ------
    ValueError   if `kind` is none of our BERTs, or a name is missing or unknown
    """
    names = bert_names(config, kind)
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or unknown:
        raise ValueError(f"bert_to_hugging_face needs exactly the names of our {kind}; {listed(missing, unknown)}")
    theirs = {name: state[ours] for ours, name in names.items()}
    if kind == "Bert":                                    # the files of the encoder alone have no prefix
        return {name.removeprefix(_prefix(config)): array for name, array in theirs.items()}
    return theirs | ({name: theirs[tied] for name, tied in bert_tied(config).items()} if kind == "BertMaskedLM" else {})


def bert_names(config: BertConfig, kind: str = "BertMaskedLM") -> dict[str, str]:
    """our name -> their name, of every parameter of our class `kind`."""
    choice("bert_names", BERT_TYPES, kind=kind)
    names = {"tokens.weight": "embeddings.word_embeddings.weight", "positions.weight": "embeddings.position_embeddings.weight"}
    names |= {"segments.weight": "embeddings.token_type_embeddings.weight"} if config.segments else {}
    names |= _with_ends(_layers(config) if config.segments else distilbert_layers(config))
    names = {("" if kind == "Bert" else "bert.") + ours: _prefix(config) + theirs for ours, theirs in names.items()}
    names |= _with_ends((_HEADS if config.segments else DISTILBERT_HEADS)[kind])
    if kind == "BertMaskedLM":
        names["bias"] = "cls.predictions.bias" if config.segments else "vocab_projector.bias"
    return names


def _layers(config: BertConfig) -> dict[str, str]:
    """our name -> their name, of every layer of the encoder, which has a weight and a bias."""
    layers = {"norm": "embeddings.LayerNorm"}
    for i in range(config.n_layers):
        parts = {
            "attn.q_proj": "attention.self.query", "attn.k_proj": "attention.self.key", "attn.v_proj": "attention.self.value",
            "attn.o_proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
            "mlp.up_proj": "intermediate.dense", "mlp.down_proj": "output.dense", "norm2": "output.LayerNorm",
        }
        layers |= {f"blocks.{i}.{ours}": f"encoder.layer.{i}.{theirs}" for ours, theirs in parts.items()}
    return layers


def _with_ends(layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{end}": f"{theirs}.{end}" for ours, theirs in layers.items() for end in ("weight", "bias")}


def _prefix(config: BertConfig) -> str:
    """What the encoder's names begin with in files of models with a head."""
    return "bert." if config.segments else "distilbert."


def _modern(name: str, config: BertConfig) -> str:
    """Their name today: behind the prefix that the files of the encoder alone lack, and with today's end."""
    start, dot, end = name.rpartition(".")
    name, prefix = f"{start}{dot}{_OLD_ENDS.get(end, end)}", _prefix(config)
    heads = _OTHERS if config.segments else DISTILBERT_OTHERS
    return name if name.startswith((prefix, *heads)) else prefix + name
