"""What shape each array of a model must have by its config, so that a file that does not fit is named before anything is built."""

from collections.abc import Mapping
from typing import Any

from byhand.checks import fail
from byhand.hugging_face.on_disk import OnDisk

_FLOATS = ("float64", "float32", "float16")


def demand_shapes(who: str, state: Mapping[str, Any], config: Any) -> None:
    """Every array of `state`, by our names, has the shape that the config gives it, and is of floats.

    Raises
    ------
    ValueError   naming the array, both here and in its file, and both shapes or dtypes
    """
    for name, array in state.items():
        want = shape_of(name, config)
        if tuple(array.shape) != want:
            fail(who, f"{name} of shape {want}", f"shape {tuple(array.shape)}{_from(array)}")
        if str(array.dtype.newbyteorder("=")) not in _FLOATS:
            fail(who, f"{name} of {', '.join(_FLOATS)} or bfloat16", f"{array.dtype}{_from(array)}")


def shape_of(name: str, config: Any) -> tuple[int, ...]:
    """The shape of a parameter by our name, of any family: its last words say what it is.

    Examples
    --------
    >>> from byhand.configs.llama import LlamaConfig
    >>> config = LlamaConfig(vocabulary=7, max_length=8, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
    >>> shape_of("blocks.1.attn.k_proj.weight", config), shape_of("blocks.0.mlp.down_proj.weight", config), shape_of("norm.weight", config)
    ((4, 12), (12, 20), (12,))
    """
    d, heads = config.d_model, config.n_heads
    e = getattr(config, "head_width", None) or d // heads
    *above, layer, end = ("", "", *name.split("."))
    experts, one = getattr(config, "n_experts", 0), getattr(config, "d_expert", 0)
    f = getattr(config, "d_shared", None) if above[-1] == "shared" else config.d_hidden
    if layer == "experts":                                              # stacks: mlp.experts.gate_proj
        return (experts, d, one) if end == "down_proj" else (experts, one, d)
    if end.endswith("_positions"):                                      # T5's tables
        return (config.buckets, heads)
    if end == "bias" and not layer:                                     # of the masked language model's head
        return (config.vocabulary,)
    width = getattr(config, "n_kv_heads", None) or heads
    rows, columns = {
        "tokens": (config.vocabulary, d),
        "positions": (getattr(config, "max_length", 0), d), "segments": (getattr(config, "segments", 0), d),
        "q_proj": (heads * e, d), "k_proj": (width * e, d), "v_proj": (width * e, d), "o_proj": (d, heads * e),
        "gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f), "router": (experts, d), "shared_gate": (1, d),
        "q_norm": (e, 0), "k_norm": (e, 0), "pooler": (d, d), "transform": (d, d),
        "head": (getattr(config, "classes", config.vocabulary), d),
    }.get(layer, (d, 0))                                                # what is left are norms
    return (rows, columns) if end == "weight" and columns else (rows,)


def _from(array: Any) -> str:
    if not isinstance(array, OnDisk):
        return ""
    whole = "" if array.shape == array.whole else f" of shape {array.whole}"
    return f", from {array.name}{whole} in {array.file}"
