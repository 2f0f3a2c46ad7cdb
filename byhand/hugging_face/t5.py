"""Between our T5's config and parameter names and those of Hugging Face's files, of T5, T5 v1.1 and FLAN-T5.

Only names differ: matrices are (out, in) there too, and a table of positions is (buckets, heads).
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.t5 import T5Config
from byhand.hugging_face.combined import same_values
from byhand.hugging_face.names import listed

_ACTIVATIONS = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "silu", "gated-gelu": "geglu_tanh", "gated-silu": "swiglu",
    "gated-relu": "reglu",
}
# Files of the first T5 hold a table of positions in cross-attention that nothing reads.
_UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def t5_config_from_hugging_face(values: Mapping[str, Any]) -> T5Config:
    """The config.json of a T5, as transformers 4 and 5 write it, as ours.

    What it leaves out has the value that transformers gives it: 32 buckets, relu, a tied head … Version 5 of transformers writes of every
    T5 that the head is tied, and beside it in scale_decoder_outputs whether it is.

    Raises
    ------
    ValueError   if something is missing, or the model has what ours has not: another activation, or two that are
                 said in different places

    Examples
    --------
    >>> sizes = dict(vocab_size=5, d_model=4, num_heads=2, d_kv=3, num_layers=1, d_ff=8)
    >>> t5_config_from_hugging_face(sizes | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)).activation
    'geglu_tanh'
    """
    who = "t5_config_from_hugging_face"
    needed = ("vocab_size", "d_model", "num_heads", "d_kv", "num_layers", "d_ff")
    missing = [name for name in needed if values.get(name) is None]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    activation = values.get("feed_forward_proj", "relu")
    choice(who, _ACTIVATIONS, feed_forward_proj=activation)
    gated = activation.startswith("gated-")                     # what transformers makes of it stands in newer files too, and counts there
    inner = "gelu_new" if activation == "gated-gelu" else activation.removeprefix("gated-")
    choice(who, (inner,), dense_act_fn=values.get("dense_act_fn", inner))
    choice(who, (gated,), is_gated_act=values.get("is_gated_act", gated))
    padding, start = values.get("pad_token_id"), values.get("decoder_start_token_id")
    return T5Config(
        vocabulary=values["vocab_size"],
        d_model=values["d_model"],
        n_heads=values["num_heads"],
        encoder_layers=values["num_layers"],
        decoder_layers=values["num_layers"] if values.get("num_decoder_layers") is None else values["num_decoder_layers"],
        d_hidden=values["d_ff"],
        head_width=values["d_kv"],
        activation=_ACTIVATIONS[activation],
        tied=values.get("scale_decoder_outputs", values.get("tie_word_embeddings", True)),
        buckets=values.get("relative_attention_num_buckets", 32),
        max_distance=values.get("relative_attention_max_distance", 128),
        start=0 if start is None else start,
        padding=0 if padding is None else padding,
        dropout=values.get("dropout_rate", 0.1),
        norm_eps=values.get("layer_norm_epsilon", 1e-6),
    )


def t5_config_to_hugging_face(config: T5Config) -> dict[str, Any]:
    """The way back: a config.json for transformers' T5ForConditionalGeneration.

    Raises
    ------
    ValueError   if transformers does not have the activation

    Examples
    --------
    >>> ours = T5Config(vocabulary=5, d_model=4, n_heads=2, encoder_layers=1, decoder_layers=3, head_width=3, tied=False)
    >>> t5_config_from_hugging_face(t5_config_to_hugging_face(ours)) == ours
    True
    """
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    choice("t5_config_to_hugging_face", activations, activation=config.activation)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocabulary,
        "d_model": config.d_model,
        "num_heads": config.n_heads,
        "d_kv": config.head_width,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "d_ff": config.d_hidden,
        "feed_forward_proj": activations[config.activation],
        "tie_word_embeddings": config.tied,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
        "decoder_start_token_id": config.start,
        "pad_token_id": config.padding,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.norm_eps,
    }


def t5_from_hugging_face(state: Mapping[str, NDArray], config: T5Config) -> dict[str, NDArray]:
    """The state of a transformers T5 under our names, for `T5(config).load_state_dict`.

    A file of T5 v1.1 without a head has the token table as head: version 5 of transformers leaves out what equals it, and reads it so.

    Parameters
    ----------
    state    of a T5ForConditionalGeneration, NumPy arrays
    config   says which names there must be

    Raises
    ------
    ValueError   if a name is missing or unknown, or what the config calls tied is not one table

    Examples
    --------
    >>> config = T5Config(vocabulary=5, d_model=4, n_heads=2, encoder_layers=1, decoder_layers=1)
    >>> [theirs for ours, theirs in t5_names(config).items() if "cross" in ours and "norm" in ours]
    ['decoder.block.0.layer.1.layer_norm.weight']
    """
    who, names = "t5_from_hugging_face", t5_names(config)
    own = {name: array for name, array in state.items() if name != _UNREAD}
    found = {name: own.pop(name) for name in t5_copies(config) if name in own}
    if not config.tied and "shared.weight" in own:
        own.setdefault("lm_head.weight", own["shared.weight"])
    missing, unknown = sorted(set(names.values()) - own.keys()), sorted(own.keys() - set(names.values()))
    if missing or unknown:
        raise ValueError(f"{who} needs exactly the names of a T5 of this config; {listed(missing, unknown)}")
    for name, array in found.items():
        if not same_values(array, own["shared.weight"]):
            raise ValueError(f"{who} needs {name} to be shared.weight; this model has another table there")
    return {ours: own[theirs] for ours, theirs in names.items()}


def t5_to_hugging_face(state: Mapping[str, NDArray], config: T5Config) -> dict[str, NDArray]:
    """The way back: our T5's state under the names of transformers' T5ForConditionalGeneration, every use of the token table included.

    Raises
    ------
    ValueError   if a name is missing or unknown
    """
    names = t5_names(config)
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or unknown:
        raise ValueError(f"t5_to_hugging_face needs exactly the names of our T5 of this config; {listed(missing, unknown)}")
    return {theirs: state[ours] for ours, theirs in names.items()} | dict.fromkeys(t5_copies(config), state["tokens.weight"])


def t5_copies(config: T5Config) -> tuple[str, ...]:
    """Their further names of the token table, under which a file may hold it once more."""
    return ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(("lm_head.weight",) if config.tied else ()))


def t5_names(config: T5Config) -> dict[str, str]:
    """our name -> their name, of every parameter of this config."""
    assert config.decoder_layers  # the config has filled it in
    names = {"tokens.weight": "shared.weight"}
    matrices = {"gate_proj": "wi_0", "up_proj": "wi_1", "down_proj": "wo"} if config.gated else {"up_proj": "wi", "down_proj": "wo"}
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        # The table of positions stands in their first layer, which computes the bias for all of them.
        names[f"{stack}_positions"] = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        branches = [("attn", "norm1", "SelfAttention"), ("cross_attn", "norm_cross", "EncDecAttention")][: 1 + (stack == "decoder")]
        for i in range(layers):
            for j, (branch, norm, theirs) in enumerate(branches):
                names[f"{stack}.{i}.{norm}.weight"] = f"{stack}.block.{i}.layer.{j}.layer_norm.weight"
                for letter in "qkvo":
                    names[f"{stack}.{i}.{branch}.{letter}_proj.weight"] = f"{stack}.block.{i}.layer.{j}.{theirs}.{letter}.weight"
            last = f"{stack}.block.{i}.layer.{len(branches)}"
            names[f"{stack}.{i}.norm2.weight"] = f"{last}.layer_norm.weight"
            names |= {f"{stack}.{i}.mlp.{ours}.weight": f"{last}.DenseReluDense.{name}.weight" for ours, name in matrices.items()}
        names[f"{stack}_norm.weight"] = f"{stack}.final_layer_norm.weight"
    return names | ({} if config.tied else {"head.weight": "lm_head.weight"})
