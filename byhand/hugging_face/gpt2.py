"""Between our GPT-2's config and parameter names and those of Hugging Face's files: renaming, transposing, splitting and joining."""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from byhand.checks import choice, demand, in_range
from byhand.configs.gpt2 import GPT2Config
from byhand.hugging_face.combined import Joined, same_values
from byhand.hugging_face.names import listed, renamed

_PREFIX = "transformer."                        # GPT2LMHeadModel's files have it, GPT2Model's (the one published as "gpt2") do not
_BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files carry along
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu", "mish": "mish"}


def gpt2_config_from_hugging_face(values: Mapping[str, Any]) -> GPT2Config:
    """The config.json of a transformers GPT-2 as ours.

    Raises
    ------
    ValueError   if something is missing, or the model has what ours has not: three different dropouts, a head of its own, scores that are
                 scaled otherwise

    Examples
    --------
    >>> gpt2_config_from_hugging_face(dict(vocab_size=5, n_positions=8, n_embd=4, n_layer=1, n_head=2)).d_hidden
    16
    """
    who = "gpt2_config_from_hugging_face"
    missing = [name for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head") if values.get(name) is None]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    plain = dict(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False, tie_word_embeddings=True)
    for name, value in plain.items():
        choice(who, (value,), **{name: values.get(name, value)})
    dropouts = {name: values.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    in_range(who, 0, 1, **dropouts)
    demand(who, len(set(dropouts.values())) == 1, "one dropout for all places", **dropouts)
    activation = values.get("activation_function", "gelu_new")
    choice(who, _ACTIVATIONS, activation_function=activation)
    return GPT2Config(
        vocabulary=values["vocab_size"],
        max_length=values["n_positions"],
        d_model=values["n_embd"],
        n_layers=values["n_layer"],
        n_heads=values["n_head"],
        d_hidden=values.get("n_inner"),
        dropout=dropouts["resid_pdrop"],
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        activation=_ACTIVATIONS[activation],
    )


def gpt2_config_to_hugging_face(config: GPT2Config) -> dict[str, Any]:
    """The way back: a config.json for transformers' GPT2LMHeadModel.

    Raises
    ------
    ValueError   if transformers does not have the activation

    Examples
    --------
    >>> ours = GPT2Config(vocabulary=5, max_length=8, d_model=4, n_layers=1, n_heads=2)
    >>> gpt2_config_from_hugging_face(gpt2_config_to_hugging_face(ours)) == ours
    True
    """
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    choice("gpt2_config_to_hugging_face", activations, activation=config.activation)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_positions": config.max_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_hidden,
        "activation_function": activations[config.activation],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": True,
    }


def gpt2_from_hugging_face(state: Mapping[str, NDArray], layers: int | None = None) -> dict[str, NDArray]:
    """The state of a transformers GPT-2 under our names, for `GPT2.load_state_dict`.

    Its Conv1D holds matrices as (in, out), ours are (out, in); its c_attn is our q_proj, k_proj and v_proj side by side. The arrays are
    views, of what is on disk too.

    Parameters
    ----------
    state    of a GPT2Model or GPT2LMHeadModel, NumPy arrays, or arrays on disk
    layers   how many blocks there must be; None: as many as there are

    Raises
    ------
    ValueError   if a name is missing or unknown, c_attn does not split in three, or lm_head is not the token embedding

    Examples
    --------
    >>> import numpy as np
    >>> tables = {"wte.weight": np.zeros((5, 2)), "wpe.weight": np.zeros((3, 2))}
    >>> norm = {"ln_f.weight": np.ones(2), "ln_f.bias": np.zeros(2)}
    >>> list(gpt2_from_hugging_face(tables | norm))                     # a GPT-2 of no blocks
    ['tokens.weight', 'positions.weight', 'norm.weight', 'norm.bias']
    """
    state = renamed("gpt2_from_hugging_face", {name: array for name, array in state.items() if not name.endswith(_BUFFERS)},
                    lambda name: name.removeprefix(_PREFIX))
    head = state.pop("lm_head.weight", None)
    if layers is None:
        layers = len({name.split(".")[1] for name in state if name.startswith("h.")})
    names = dict(gpt2_names(layers))
    known = {theirs for theirs, *_ in names.values()}
    missing, unknown = sorted(known - state.keys()), sorted(state.keys() - known)
    if missing or unknown:
        raise ValueError(f"gpt2_from_hugging_face needs exactly the names of a GPT-2; {listed(missing, unknown)}")
    if head is not None and not same_values(head, state["wte.weight"]):
        raise ValueError("gpt2_from_hugging_face needs lm_head.weight to be wte.weight; this model has a head of its own")

    ours = {}
    for name, (theirs, part, transposed) in names.items():
        array = state[theirs]
        if part is not None:
            if not array.shape or array.shape[-1] % 3:
                raise ValueError(f"gpt2_from_hugging_face needs {theirs} with a multiple of 3 columns; got shape {array.shape}")
            third = array.shape[-1] // 3
            array = array[..., part * third : (part + 1) * third]
        ours[name] = array.T if transposed else array
    return ours


def gpt2_to_hugging_face(state: Mapping[str, NDArray]) -> dict[str, Any]:
    """The way back: our GPT-2's state under the names of transformers' GPT2LMHeadModel, its tied head included; what stands side by side is
    joined when it is written.

    Raises
    ------
    ValueError   if a name is missing or unknown
    """
    layers = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    names = dict(gpt2_names(layers))
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or unknown:
        raise ValueError(f"gpt2_to_hugging_face needs exactly the names of our GPT-2; {listed(missing, unknown)}")
    parts: dict[str, list[Any]] = {}
    for name, (theirs, _, transposed) in names.items():
        parts.setdefault(_PREFIX + theirs, []).append(state[name].T if transposed else state[name])
    joined: dict[str, Any] = {name: arrays[0] if len(arrays) == 1 else Joined(arrays) for name, arrays in parts.items()}
    return joined | {"lm_head.weight": state["tokens.weight"]}


def gpt2_names(layers: int) -> Iterator[tuple[str, tuple[str, int | None, bool]]]:
    """Of a GPT-2 of so many layers: (our name, (their name, which third of it or None for all, whether it is transposed))."""
    yield "tokens.weight", ("wte.weight", None, False)
    yield "positions.weight", ("wpe.weight", None, False)
    for i in range(layers):
        for end in ("weight", "bias"):
            turned = end == "weight"
            yield f"blocks.{i}.norm1.{end}", (f"h.{i}.ln_1.{end}", None, False)
            for part, letter in enumerate("qkv"):
                yield f"blocks.{i}.attn.{letter}_proj.{end}", (f"h.{i}.attn.c_attn.{end}", part, turned)
            yield f"blocks.{i}.attn.o_proj.{end}", (f"h.{i}.attn.c_proj.{end}", None, turned)
            yield f"blocks.{i}.norm2.{end}", (f"h.{i}.ln_2.{end}", None, False)
            yield f"blocks.{i}.mlp.up_proj.{end}", (f"h.{i}.mlp.c_fc.{end}", None, turned)
            yield f"blocks.{i}.mlp.down_proj.{end}", (f"h.{i}.mlp.c_proj.{end}", None, turned)
    for end in ("weight", "bias"):
        yield f"norm.{end}", (f"ln_f.{end}", None, False)
