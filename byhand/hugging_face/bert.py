"""Between our BERT's configs and parameter names and those of Hugging Face's files, of BERT (MiniLM is one) and DistilBERT. Only names
differ: matrices are (out, in) there too."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from byhand.checks import choice, demand, size
from byhand.configs.bert import BertConfig
from byhand.hugging_face.distilbert import (
    DISTILBERT_HEADS,
    DISTILBERT_OTHERS,
    DISTILBERT_TIED,
    DISTILBERT_TYPES,
    distilbert_config_from_hugging_face,
    distilbert_config_to_hugging_face,
    distilbert_layers,
)
from byhand.hugging_face.names import listed
from byhand.hugging_face.on_disk import same_values

# our class -> theirs
BERT_TYPES = {
    "Bert": "BertModel", "BertMaskedLM": "BertForMaskedLM", "BertSequenceClassifier": "BertForSequenceClassification",
    "BertTokenClassifier": "BertForTokenClassification",
}
# their copies in the masked language model's files -> what they are copies of
BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
_OLD_ENDS = {"gamma": "weight", "beta": "bias"}           # of norms, in files older than PyTorch's names
# our class -> our name of what reads its encoder -> theirs
_HEADS: dict[str, dict[str, str]] = {
    "Bert": {}, "BertTokenClassifier": {"head": "classifier"},
    "BertSequenceClassifier": {"pooler": "bert.pooler.dense", "head": "classifier"},
    "BertMaskedLM": {"transform": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"},
}
_OTHERS = ("bert.pooler.", "cls.", "classifier.")         # how names begin that belong to no encoder


def bert_config_from_hugging_face(values: Mapping[str, Any]) -> BertConfig:
    """The config.json of a transformers BERT or DistilBERT as ours.

    Raises
    ------
    ValueError   if something is missing, or the model has what ours has not: different dropouts, a causal mask, cross-attention, a head
                 that is not tied

    Examples
    --------
    >>> sizes = dict(vocab_size=5, max_position_embeddings=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> bert_config_from_hugging_face(sizes | dict(intermediate_size=16, id2label={"0": "no", "1": "yes", "2": "maybe"})).classes
    3
    """
    who = "bert_config_from_hugging_face"
    if values.get("model_type") == "distilbert":
        return distilbert_config_from_hugging_face(values)
    needed = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    missing = [name for name in needed if values.get(name) is None]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    plain = dict(model_type="bert", is_decoder=False, add_cross_attention=False, tie_word_embeddings=True,
                 position_embedding_type="absolute")
    for name, value in plain.items():
        choice(who, (value,), **{name: values.get(name, value)})
    dropouts = {name: values.get(name, 0.1) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    if values.get("classifier_dropout") is not None:
        dropouts["classifier_dropout"] = values["classifier_dropout"]
    demand(who, len(set(dropouts.values())) == 1, "one dropout for all places", **dropouts)
    activation = values.get("hidden_act", "gelu")
    choice(who, _ACTIVATIONS, hidden_act=activation)
    size(who, type_vocab_size=values.get("type_vocab_size", 2))
    return BertConfig(
        vocabulary=values["vocab_size"],
        max_length=values["max_position_embeddings"],
        d_model=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        d_hidden=values["intermediate_size"],
        segments=values.get("type_vocab_size", 2),
        padding=values.get("pad_token_id", 0),
        classes=values.get("num_labels") or len(values.get("id2label") or (0, 1)),
        dropout=dropouts["hidden_dropout_prob"],
        norm_eps=values.get("layer_norm_eps", 1e-12),
        activation=_ACTIVATIONS[activation],
    )


def bert_kind(values: Mapping[str, Any]) -> str:
    """Our class for the model of a config.json: what its `architectures` name; where they name nothing, the encoder alone.

    Raises
    ------
    ValueError   if the model has a head that ours has not

    Examples
    --------
    >>> bert_kind({"architectures": ["BertForTokenClassification"]}), bert_kind({"architectures": ["BertForPreTraining"]}), bert_kind({})
    ('BertTokenClassifier', 'BertMaskedLM', 'Bert')
    """
    distilled = values.get("model_type") == "distilbert"
    types = DISTILBERT_TYPES if distilled else BERT_TYPES
    kinds = {theirs: ours for ours, theirs in types.items()} | ({} if distilled else {"BertForPreTraining": "BertMaskedLM"})
    architectures = values.get("architectures") or [types["Bert"]]
    one = isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)
    demand("bert_kind", one, "one name as architectures", architectures=architectures)
    choice("bert_kind", kinds, architectures=architectures[0])
    return kinds[architectures[0]]


def bert_config_to_hugging_face(config: BertConfig, kind: str = "BertMaskedLM") -> dict[str, Any]:
    """The way back: a config.json for the transformers model that is our class `kind`, a DistilBERT where there are no segments.

    Raises
    ------
    ValueError   if `kind` is none of our BERTs, or transformers does not have the activation, or a pooler like this one

    Examples
    --------
    >>> ours = BertConfig(vocabulary=5, max_length=8, d_model=4, n_layers=1, n_heads=2, classes=3)
    >>> bert_config_from_hugging_face(bert_config_to_hugging_face(ours)) == ours
    True
    """
    who = "bert_config_to_hugging_face"
    choice(who, BERT_TYPES, kind=kind)
    if not config.segments:
        return distilbert_config_to_hugging_face(config, kind)
    choice(who, ("tanh",) if kind == "BertSequenceClassifier" else ("tanh", "relu"), pooler=config.pooler)
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    choice(who, activations, activation=config.activation)
    return {
        "architectures": [BERT_TYPES[kind]],
        "model_type": "bert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.max_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_hidden,
        "type_vocab_size": config.segments,
        "pad_token_id": config.padding,
        "id2label": {str(i): f"LABEL_{i}" for i in range(config.classes)},
        "label2id": {f"LABEL_{i}": i for i in range(config.classes)},
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": activations[config.activation],
        "tie_word_embeddings": True,
    }


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
    theirs = {_modern(name, config): array for name, array in state.items() if not name.endswith("embeddings.position_ids")}
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
