"""Between our BERT's config and config.json of Hugging Face's files, of BERT (MiniLM is one) and DistilBERT."""

from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, in_range, size
from byhand.configs.bert import BertConfig
from byhand.hugging_face.distilbert import DISTILBERT_TYPES, classes, distilbert_config_from_hugging_face, distilbert_config_to_hugging_face

# our class -> theirs
BERT_TYPES = {
    "Bert": "BertModel", "BertMaskedLM": "BertForMaskedLM", "BertSequenceClassifier": "BertForSequenceClassification",
    "BertTokenClassifier": "BertForTokenClassification",
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}


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
    in_range(who, 0, 1, **dropouts)
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
        classes=classes(who, values),
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
