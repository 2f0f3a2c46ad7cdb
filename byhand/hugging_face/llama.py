"""Between our Llama's config and parameter names and those of Hugging Face's files, of Llama, Mistral, Qwen2 and Qwen3.

Only names differ: matrices are (out, in) there too, and rotary turns the same halves of a head.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.llama import LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.hugging_face.combined import same_values
from byhand.hugging_face.names import listed, renamed

LLAMA_TYPES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}
_BUFFERS = (".rotary_emb.inv_freq",)  # the frequencies of rotary, which old files carry along


def llama_config_from_hugging_face(values: Mapping[str, Any]) -> LlamaConfig:
    """The config.json of a Llama, Mistral, Qwen2 or Qwen3, as transformers 4 and 5 write it, as ours.

    Its attention_dropout is not taken over: our `dropout` also acts elsewhere.

    Raises
    ------
    ValueError   if model_type is none of these, something is missing, or the model has what ours has not: windows in some layers only,
                 another activation

    Examples
    --------
    >>> sizes = dict(vocab_size=256, max_position_embeddings=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> config = llama_config_from_hugging_face(sizes | dict(model_type="llama", intermediate_size=24, rope_theta=500000.0))
    >>> config.d_model, config.rope.base
    (8, 500000.0)
    """
    who = "llama_config_from_hugging_face"
    kind = values.get("model_type")
    choice(who, LLAMA_TYPES, model_type=kind)
    needed = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    missing = [name for name in needed if values.get(name) is None]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    act = values.get("hidden_act", "silu")
    choice(who, _ACTIVATIONS, hidden_act=act)
    rope = RopeConfig.from_hugging_face(values)
    demand(who, rope.width == rope.head_width, "rotary over whole heads, as transformers has it for these models", rope=rope)
    biased = {"llama": values.get("attention_bias", False), "mistral": False, "qwen2": "qkv", "qwen3": values.get("attention_bias", False)}
    return LlamaConfig(
        vocabulary=values["vocab_size"],
        max_length=values["max_position_embeddings"],
        d_model=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        n_kv_heads=values.get("num_key_value_heads"),
        d_hidden=values["intermediate_size"],
        head_width=rope.head_width,
        rope=rope,
        window=_window(who, values),
        attention_bias=biased[str(kind)],
        mlp_bias=kind == "llama" and values.get("mlp_bias", False),
        qk_norm=kind == "qwen3",
        tied=values.get("tie_word_embeddings", False),
        norm_eps=values.get("rms_norm_eps", 1e-6),
        activation=_ACTIVATIONS[act],
    )


def _window(who: str, values: Mapping[str, Any]) -> int | None:
    """How many keys a query sees; None for all."""
    window, layers = values.get("sliding_window"), values["num_hidden_layers"]
    if values["model_type"] == "llama" or window is None:
        return None
    if values["model_type"] == "mistral":
        return window
    if not values.get("use_sliding_window", False):
        return None
    first = values.get("max_window_layers", 28)                 # from this layer on; transformers 5 writes the list as well
    types = values.get("layer_types") or ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    demand(who, len(set(types)) == 1, "one type of attention in all layers", layer_types=types)
    return window if types[0] == "sliding_attention" else None


def llama_config_to_hugging_face(config: LlamaConfig) -> dict[str, Any]:
    """The way back: a config.json that transformers 4 and 5 read, of the plainest model_type that has what the config asks for.

    Raises
    ------
    ValueError   if no model of transformers has it: a window beside biases in all projections, say

    Examples
    --------
    >>> ours = LlamaConfig(vocabulary=256, max_length=64, d_model=8, n_layers=1, n_heads=2, d_hidden=24, window=16)
    >>> theirs = llama_config_to_hugging_face(ours)
    >>> theirs["model_type"], theirs["sliding_window"]
    ('mistral', 16)
    >>> llama_config_from_hugging_face(theirs) == ours
    True
    """
    who = "llama_config_to_hugging_face"
    if config.qk_norm:
        kind = "qwen3"
    elif config.attention_bias == "qkv":
        kind = "qwen2"
    else:
        kind = "llama" if config.window is None else "mistral"
    fits = {"llama": True, "mistral": not config.attention_bias, "qwen2": True, "qwen3": config.attention_bias != "qkv"}[kind]
    demand(who, fits and (kind == "llama" or not config.mlp_bias), "the options of one of transformers' models", window=config.window,
           attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, qk_norm=config.qk_norm)
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    choice(who, activations, activation=config.activation)
    rope = config.rope
    assert rope is not None
    demand(who, rope.width == rope.head_width, "rotary over whole heads, as transformers has it for these models", rope=rope)
    values = {
        "architectures": [LLAMA_TYPES[kind]],
        "model_type": kind,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.max_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "intermediate_size": config.d_hidden,
        "hidden_act": activations[config.activation],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
    }
    if kind in ("llama", "qwen3"):
        values["attention_bias"] = config.attention_bias
    if kind == "llama":
        values["mlp_bias"] = config.mlp_bias
    if kind != "llama":
        values["sliding_window"] = config.window
    if kind in ("qwen2", "qwen3"):
        values |= {"use_sliding_window": config.window is not None, "max_window_layers": 0}
    # Version 5 reads the shape of version 4; version 4 would pass over that of version 5 without a word.
    return values | rope.to_hugging_face(version=4)


def llama_from_hugging_face(state: Mapping[str, NDArray], config: LlamaConfig) -> dict[str, NDArray]:
    """The state of a transformers Llama (Mistral, Qwen2, Qwen3) under our names, for `Llama(config).load_state_dict`.

    Parameters
    ----------
    state    of a LlamaModel or LlamaForCausalLM, NumPy arrays
    config   says which names there must be

    Raises
    ------
    ValueError   if a name is missing or unknown, or the head is not the token embedding although the config says so

    Examples
    --------
    >>> config = LlamaConfig(vocabulary=5, max_length=8, d_model=4, n_layers=1, n_heads=2, tied=True)
    >>> [theirs for ours, theirs in llama_names(config).items() if "norm" in ours]
    ['model.layers.0.input_layernorm.weight', 'model.layers.0.post_attention_layernorm.weight', 'model.norm.weight']
    """
    return by_names("llama_from_hugging_face", state, llama_names(config), tied=config.tied)


def by_names(who: str, state: Mapping[str, NDArray], names: Mapping[str, str], *, tied: bool) -> dict[str, NDArray]:
    """The arrays that `state` holds by their names (our name -> their name) under ours; what a model of transformers may lack or have too
    is allowed for: the prefix of its class, buffers, and a tied head."""
    # The files of a LlamaModel lack the prefix.
    own = renamed(who, {name: array for name, array in state.items() if not name.endswith(_BUFFERS)},
                  lambda name: name if name.startswith(("model.", "lm_head.")) else f"model.{name}")
    head = own.pop("lm_head.weight", None) if tied else None
    exactly(who, "a model of this config", names.values(), own)
    if head is not None and not same_values(head, own["model.embed_tokens.weight"]):
        raise ValueError(f"{who} needs lm_head.weight to be the token embedding, for tied=True; this model has a head of its own")
    return {ours: own[theirs] for ours, theirs in names.items()}


def llama_to_hugging_face(state: Mapping[str, NDArray], config: LlamaConfig) -> dict[str, NDArray]:
    """The way back: our Llama's state under the names of transformers' LlamaForCausalLM, a tied head included.

    Raises
    ------
    ValueError   if a name is missing or unknown
    """
    names = llama_names(config)
    exactly("llama_to_hugging_face", "our Llama of this config", names, state)
    theirs = {theirs: state[ours] for ours, theirs in names.items()}
    return theirs | ({"lm_head.weight": state["tokens.weight"]} if config.tied else {})


def llama_names(config: LlamaConfig) -> dict[str, str]:
    """our name -> their name, of every parameter of this config."""
    attention = [f"{letter}_proj.weight" for letter in "qkvo"]
    attention += [f"{letter}_proj.bias" for letter in ("qkvo" if config.attention_bias is True else "qkv" if config.attention_bias else "")]
    attention += ["q_norm.weight", "k_norm.weight"] if config.qk_norm else []
    ends = ("weight", "bias") if config.mlp_bias else ("weight",)
    names = {"tokens.weight": "model.embed_tokens.weight"}
    for i in range(config.n_layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        names[f"{ours}.norm1.weight"] = f"{theirs}.input_layernorm.weight"
        names |= {f"{ours}.attn.{name}": f"{theirs}.self_attn.{name}" for name in attention}
        names[f"{ours}.norm2.weight"] = f"{theirs}.post_attention_layernorm.weight"
        names |= {f"{ours}.mlp.{part}_proj.{end}": f"{theirs}.mlp.{part}_proj.{end}" for part in ("gate", "up", "down") for end in ends}
    names["norm.weight"] = "model.norm.weight"
    return names | ({} if config.tied else {"head.weight": "lm_head.weight"})


def exactly(who: str, what: str, names: Iterable[str], state: Mapping[str, NDArray]) -> None:
    """Fail unless `state` has exactly these names."""
    missing, unknown = sorted(set(names) - state.keys()), sorted(state.keys() - set(names))
    if missing or unknown:
        raise ValueError(f"{who} needs exactly the names of {what}; {listed(missing, unknown)}")
