"""How many numbers and how many bytes weights, adapters and what trains them take: counted from shapes, on either side of the mirror."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from byhand.checks import choice, demand, size

Storage = Literal["float32", "bfloat16", "4bit", "4bit-double"]
Shape = tuple[int, ...]

STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "4bit", "4bit-double")
_FLOATS = {"float32": 4, "bfloat16": 2}
_SCALES = 256  # scales that share one, where they are quantized a second time


def largest_rank(shape: Shape) -> int:
    """The rank that a weight can have at most, a convolution's as the matrix (out, in · kernel) that multiplies patches."""
    return int(min(shape[0], math.prod(shape[1:])))


def rank_cost(shape: Shape) -> int:
    """Parameters of an adapter per unit of its rank: a row of A and a column of B (of a convolution, one without groups).

    Examples
    --------
    >>> rank_cost((4096, 11008)), rank_cost((8, 3, 5, 5))
    (15104, 83)
    """
    return int(math.prod(shape[1:]) + shape[0])


def adapter_parameters(shape: Shape, r: int, *, dora: bool = False) -> int:
    """R · (in + out), and with DoRA a length for each of the `out` rows."""
    return r * rank_cost(shape) + (shape[0] if dora else 0)


def weight_bytes(parameters: int, storage: Storage, *, block: int = 64) -> int:
    """Bytes of a weight of so many numbers.

    In 4 bits two numbers share a byte, and `block` numbers share a float32 scale; "4bit-double" keeps those scales in 8 bits, 256 of them
    sharing a float32 again, around one float32 mean.

    Examples
    --------
    >>> [weight_bytes(4096 * 4096, storage) * 8 / 4096**2 for storage in ("float32", "bfloat16", "4bit")]
    [32.0, 16.0, 4.5]
    >>> round(weight_bytes(4096 * 4096, "4bit-double") * 8 / 4096**2, 3)
    4.127
    """
    choice("weight_bytes", STORAGES, storage=storage)
    size("weight_bytes", block=block)
    if storage in _FLOATS:
        return parameters * _FLOATS[storage]
    scales = -(-parameters // block)
    double = scales + 4 * -(-scales // _SCALES) + 4
    return -(-parameters // 2) + (double if storage == "4bit-double" else 4 * scales)


def trained_bytes(storage: Storage, *, states: int = 2) -> int:
    """Bytes of one number that trains: itself, its gradient, and the optimizer's states, which are float32 (AdamW has two).

    Examples
    --------
    >>> trained_bytes("float32"), trained_bytes("bfloat16")
    (16, 12)
    """
    choice("trained_bytes", tuple(_FLOATS), storage=storage)
    size("trained_bytes", at_least=0, states=states)
    return 2 * _FLOATS[storage] + 4 * states


def check_shapes(function: str, shapes: Mapping[str, Shape]) -> None:
    """Fail unless it is a weight's shape by every name, with two axes or more, and none of them empty."""
    demand(function, isinstance(shapes, Mapping) and len(shapes) > 0, "the shape of at least one weight by its name", shapes=shapes)
    for name, shape in shapes.items():
        demand(function, len(shape) >= 2, f"shapes[{name!r}] with at least 2 axes", shape=tuple(shape))
        for axis in shape:
            size(function, **{f"an axis of shapes[{name!r}]": axis})


@dataclasses.dataclass(frozen=True)
class Stored:
    """One weight, bias or buffer of a model: how many numbers it stands for, in how many bytes, and whether it trains."""

    name: str
    shape: Shape
    bytes: int
    trains: bool

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


def inventory(model: Any) -> list[Stored]:
    """Everything a model of either side holds, by dotted name. Quantized weights are one entry, called weight, of their full shape."""
    named = [("", model), *(pair for pair in _modules(model) if pair[0])]
    return [stored for name, module in named for stored in _own(f"{name}." if name else "", module)]


def weight_shapes(model: Any, names: Iterable[str]) -> dict[str, Shape]:
    """The shape (out, in, …) of the weight of each module of these names; of what an adapter wraps, where there is one.

    A table of embeddings (V, D) counts as (D, V), the matrix that a token's one-hot row is multiplied by.
    """
    modules, found = dict(_modules(model)), {}
    for name in names:
        demand("weight_shapes", name in modules, "names of modules", name=name)
        base = getattr(modules[name], "base", modules[name])
        shape = {stored.name: stored.shape for stored in _own("", base)}.get("weight")
        demand("weight_shapes", shape is not None, "names of modules that have a weight", name=name)
        assert shape is not None
        found[name] = shape[::-1] if type(base).__name__ == "Embedding" else shape
    return found


def _modules(model: Any) -> Iterator[tuple[str, Any]]:
    return model.named_modules() if hasattr(model, "named_modules") else model.modules()


def _own(prefix: str, module: Any) -> Iterator[Stored]:
    """What the module itself holds, without its children."""
    if hasattr(module, "named_parameters"):
        arrays = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        trains = {name for name, array in arrays.items() if array.requires_grad}
    else:
        arrays = {name: value for name, value in vars(module).items() if hasattr(value, "dtype") and hasattr(value, "nbytes")}
        trains = {name for name in arrays if module.trains(name)}
    if "codes" in arrays:
        packed = [arrays.pop(name) for name in list(arrays) if name == "codes" or name.startswith("absmax")]
        yield Stored(f"{prefix}weight", (module.out_features, module.in_features), sum(int(array.nbytes) for array in packed), False)
    for name, array in arrays.items():
        yield Stored(prefix + name, tuple(array.shape), int(array.nbytes), name in trains)
