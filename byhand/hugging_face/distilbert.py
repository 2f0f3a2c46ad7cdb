"""Between our BERT's configs and parameter names and those of Hugging Face's files of DistilBERT (Sanh et al. 2019, arXiv:1910.01108): a
BERT without segments, whose sequence classifier has a relu where BERT's has tanh."""

from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, in_range
from byhand.configs.bert import BertConfig

# our class -> theirs
DISTILBERT_TYPES = {
    "Bert": "DistilBertModel", "BertMaskedLM": "DistilBertForMaskedLM", "BertSequenceClassifier": "DistilBertForSequenceClassification",
    "BertTokenClassifier": "DistilBertForTokenClassification",
}
# their copy in the masked language model's files -> what it is a copy of
DISTILBERT_TIED = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
# our class -> our name of what reads its encoder -> theirs
DISTILBERT_HEADS: dict[str, dict[str, str]] = {
    "Bert": {}, "BertTokenClassifier": {"head": "classifier"}, "BertSequenceClassifier": {"pooler": "pre_classifier", "head": "classifier"},
    "BertMaskedLM": {"transform": "vocab_transform", "norm": "vocab_layer_norm"},
}
DISTILBERT_OTHERS = ("vocab_", "pre_classifier.", "classifier.", "qa_outputs.")             # how names begin that belong to no encoder
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
_NORM_EPS = 1e-12                                         # of every norm; no file says it


def distilbert_config_from_hugging_face(values: Mapping[str, Any]) -> BertConfig:
    """The config.json of a transformers DistilBERT as ours.

    Its seq_classif_dropout, of a classifier's training, is not taken over: ours has one dropout for all places.

    Raises
    ------
    ValueError   if something is missing, or the model has what ours has not: different dropouts, a head that is not tied

    Examples
    --------
    >>> sizes = dict(vocab_size=5, max_position_embeddings=8, dim=4, hidden_dim=16, n_layers=1, n_heads=2)
    >>> config = distilbert_config_from_hugging_face(sizes)
    >>> config.segments, config.pooler
    (0, 'relu')
    """
    who = "distilbert_config_from_hugging_face"
    needed = ("vocab_size", "max_position_embeddings", "dim", "hidden_dim", "n_layers", "n_heads")
    missing = [name for name in needed if values.get(name) is None]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    choice(who, (True,), tie_word_embeddings=values.get("tie_word_embeddings", True))
    dropouts = {name: values.get(name, 0.1) for name in ("dropout", "attention_dropout")}
    in_range(who, 0, 1, **dropouts)
    demand(who, len(set(dropouts.values())) == 1, "one dropout for all places", **dropouts)
    activation = values.get("activation", "gelu")
    choice(who, _ACTIVATIONS, activation=activation)
    return BertConfig(
        vocabulary=values["vocab_size"],
        max_length=values["max_position_embeddings"],
        d_model=values["dim"],
        n_layers=values["n_layers"],
        n_heads=values["n_heads"],
        d_hidden=values["hidden_dim"],
        segments=0,
        padding=values.get("pad_token_id", 0),
        classes=classes(who, values),
        dropout=dropouts["dropout"],
        norm_eps=_NORM_EPS,
        activation=_ACTIVATIONS[activation],
        pooler="relu",
    )


def classes(who: str, values: Mapping[str, Any]) -> Any:
    """How many a classifier tells apart, by a config.json: num_labels, or as many as it has names for; two where it says nothing."""
    names = values.get("id2label")
    demand(who, names is None or isinstance(names, Mapping), "id2label as names by number", id2label=names)
    return values.get("num_labels") or len(names or (0, 1))


def distilbert_config_to_hugging_face(config: BertConfig, kind: str) -> dict[str, Any]:
    """The way back, of a config without segments.

    Raises
    ------
    ValueError   if transformers' DistilBERT does not have the activation, the ε, or the pooler of a sequence classifier

    Examples
    --------
    >>> ours = BertConfig(vocabulary=5, max_length=8, d_model=4, n_layers=1, n_heads=2, segments=0, pooler="relu")
    >>> distilbert_config_from_hugging_face(distilbert_config_to_hugging_face(ours, "Bert")) == ours
    True
    """
    who = "distilbert_config_to_hugging_face"
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    choice(who, activations, activation=config.activation)
    choice(who, (_NORM_EPS,), norm_eps=config.norm_eps)
    choice(who, ("relu",) if kind == "BertSequenceClassifier" else ("relu", "tanh"), pooler=config.pooler)
    return {
        "architectures": [DISTILBERT_TYPES[kind]],
        "model_type": "distilbert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.max_length,
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "hidden_dim": config.d_hidden,
        "pad_token_id": config.padding,
        "id2label": {str(i): f"LABEL_{i}" for i in range(config.classes)},
        "label2id": {f"LABEL_{i}": i for i in range(config.classes)},
        "dropout": config.dropout,
        "attention_dropout": config.dropout,
        "seq_classif_dropout": config.dropout,
        "activation": activations[config.activation],
        "sinusoidal_pos_embds": False,
        "tie_word_embeddings": True,
    }


def distilbert_layers(config: BertConfig) -> dict[str, str]:
    """our name -> their name, of every layer of the encoder, which has a weight and a bias."""
    layers = {"norm": "embeddings.LayerNorm"}
    for i in range(config.n_layers):
        parts = {
            "attn.q_proj": "attention.q_lin", "attn.k_proj": "attention.k_lin", "attn.v_proj": "attention.v_lin",
            "attn.o_proj": "attention.out_lin", "norm1": "sa_layer_norm", "mlp.up_proj": "ffn.lin1", "mlp.down_proj": "ffn.lin2",
            "norm2": "output_layer_norm",
        }
        layers |= {f"blocks.{i}.{ours}": f"transformer.layer.{i}.{theirs}" for ours, theirs in parts.items()}
    return layers
