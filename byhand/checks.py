"""What an op demands of shapes, dtypes and ranges, and the error that says so.

The checks look only at ``shape``, ``dtype``, ``min`` and ``max``, so that both sides of the mirror share them and raise the same
error without this file importing PyTorch. Optional arrays may be None wherever an array is expected; None passes.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

_NUMPY_FLOATS = ("float32", "float64")
_TORCH_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def describe(value: Any) -> str:
    """``float32 (2, 3)`` for an array, the value and its type for everything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{_dtype(value)} {tuple(value.shape)}"
    return f"{value!r} of type {type(value).__name__}"


def fail(function: str, needs: str, got: str) -> None:
    """Raise the one kind of error that bad input gets: who speaks, what it needs, what came."""
    raise ValueError(f"{function} needs {needs}; got {got}")


def demand(function: str, condition: bool, needs: str, **got: Any) -> None:
    """Fail unless `condition` holds; `got` names the offending values."""
    if not condition:
        fail(function, needs, ", ".join(f"{name} {describe(value)}" for name, value in got.items()))


def floats(function: str, **arrays: Any) -> None:
    """Every array is a float array this side computes in, and all share one dtype (None passes)."""
    first = None
    for name, array in arrays.items():
        if array is None:
            continue
        if not hasattr(array, "dtype"):
            fail(function, f"{name} as an array", describe(array))
        allowed = _TORCH_FLOATS if _is_torch(array) else _NUMPY_FLOATS
        if _dtype(array) not in allowed:
            fail(function, f"{name} in {' or '.join(allowed)}", f"{name} {describe(array)}")
        if first is None:
            first = name, array
        elif _dtype(array) != _dtype(first[1]):
            fail(function, f"{first[0]} and {name} in one dtype", f"{first[0]} {describe(first[1])} and {name} {describe(array)}")


def integers(function: str, **arrays: Any) -> None:
    """Every array holds integers (None passes)."""
    _of_kind(function, "integers", _INTEGERS, arrays)


def booleans(function: str, **arrays: Any) -> None:
    """Every array holds booleans (None passes)."""
    _of_kind(function, "booleans", ("bool",), arrays)


def same_shape(function: str, shape: Iterable[int], **arrays: Any) -> None:
    """Every array has exactly this shape (None passes)."""
    shape = tuple(shape)
    for name, array in arrays.items():
        if array is not None and tuple(array.shape) != shape:
            fail(function, f"{name} of shape {shape}", f"{name} {describe(array)}")


def at_least_rank(function: str, rank: int, **arrays: Any) -> None:
    """Every array has at least `rank` axes (None passes)."""
    for name, array in arrays.items():
        if array is not None and len(array.shape) < rank:
            fail(function, f"{name} with at least {rank} {'axis' if rank == 1 else 'axes'}", f"{name} {describe(array)}")


def exact_rank(function: str, rank: int, **arrays: Any) -> None:
    """Every array has exactly `rank` axes (None passes)."""
    for name, array in arrays.items():
        if array is not None and len(array.shape) != rank:
            fail(function, f"{name} with {rank} {'axis' if rank == 1 else 'axes'}", f"{name} {describe(array)}")


def broadcastable(function: str, shape: Iterable[int], **arrays: Any) -> None:
    """Every array broadcasts to `shape` without enlarging it (None passes)."""
    shape = tuple(shape)
    for name, array in arrays.items():
        if array is None:
            continue
        own = tuple(array.shape)
        fits = len(own) <= len(shape) and all(a in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False))
        if not fits:
            fail(function, f"{name} that broadcasts to {shape}", f"{name} {describe(array)}")


def axis_of(function: str, rank: int, axis: int) -> int:
    """`axis` as a non-negative number, or the error."""
    if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank:
        fail(function, f"axis in [{-rank}, {rank - 1}] for an array with {rank} axes", f"axis {axis!r}")
    return axis % rank


def in_range(function: str, low: float, high: float, **values: Any) -> None:
    """Every number lies in [low, high] (so NaN fails)."""
    for name, value in values.items():
        if not _is_number(value) or not low <= value <= high:
            fail(function, f"{name} in [{low:g}, {high:g}]", f"{name}={value!r}")


def positive(function: str, **values: Any) -> None:
    """Every number is finite and above zero."""
    for name, value in values.items():
        if not _is_number(value) or not 0 < value < math.inf:
            fail(function, f"{name} > 0 and finite", f"{name}={value!r}")


def not_negative(function: str, **values: Any) -> None:
    """Every number is finite and at least zero."""
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < math.inf:
            fail(function, f"{name} >= 0 and finite", f"{name}={value!r}")


def size(function: str, *, at_least: int = 1, **values: Any) -> None:
    """Every value is an integer count of at least `at_least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < at_least:
            fail(function, f"{name} as an integer >= {at_least}", f"{name}={value!r}")


def choice(function: str, options: Iterable[Any], **values: Any) -> None:
    """Every value is one of the options; the nearest one is suggested."""
    options = list(options)
    for name, value in values.items():
        if value not in options:
            near = difflib.get_close_matches(str(value), [str(o) for o in options], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            fail(function, f"{name} from {', '.join(map(repr, options))}", f"{name}={value!r}{hint}")


def ids_below(function: str, count: int, *, at_least: int = 0, **arrays: Any) -> None:
    """Every integer array has its entries in [at_least, count). On an accelerator this is the kernel's own check: reading back stalls it."""
    integers(function, **arrays)
    for name, array in arrays.items():
        if array is None or 0 in tuple(array.shape) or (_is_torch(array) and array.device.type != "cpu"):
            continue
        low, high = int(array.min()), int(array.max())
        if low < at_least or high >= count:
            fail(function, f"{name} in [{at_least}, {count - 1}]", f"{name} from {low} to {high}")


def _of_kind(function: str, kind: str, allowed: tuple[str, ...], arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        if array is not None and (not hasattr(array, "dtype") or _dtype(array) not in allowed):
            fail(function, f"{name} as an array of {kind}", f"{name} {describe(array)}")


def _dtype(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _is_torch(array: Any) -> bool:
    return str(array.dtype).startswith("torch.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
