"""What an op demands of shapes, dtypes and ranges, and the error that says so.

The checks look only at ``shape``, ``dtype``, ``min`` and ``max``, so that both sides of the mirror share them and raise the same
error without this file importing PyTorch. Optional arrays may be None wherever an array is expected; None passes.
"""

import difflib
import fnmatch
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_NUMPY_FLOATS = ("float32", "float64")
_TORCH_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite; the step was stopped before its update, so the weights are those before it.

    step : int   the step that was stopped
    what : str   "the loss", or "the gradient of " and the parameter's name
    """

    def __init__(self, message: str, *, step: int = 0, what: str = ""):
        super().__init__(message)
        self.step, self.what = step, what


def finite(function: str, step: int, what: str, holds: bool) -> None:
    """Stop step `step` unless `holds`, that `what` is finite."""
    if not holds:
        raise NonFiniteError(f"{function} stopped before the update of step {step}: {what} is not finite", step=step, what=what)


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


def given(function: str, **arrays: Any) -> None:
    """Every array is there: the checks that follow let None pass."""
    for name, array in arrays.items():
        if array is None:
            fail(function, f"{name} as an array", describe(array))


def floats(function: str, **arrays: Any) -> None:
    """Every array is a float array this side computes in, and all share one dtype (None passes)."""
    first = None
    for name, array in arrays.items():
        if array is None:
            continue
        if not hasattr(array, "dtype"):
            fail(function, f"{name} as an array", describe(array))
        allowed = _TORCH_FLOATS if _is_torch(array) else _NUMPY_FLOATS
        if "float" not in _dtype(array):
            fail(function, f"{name} as an array of floats", f"{name} {describe(array)}")
        if _dtype(array) not in allowed:
            fail(function, f"{name} in {' or '.join(allowed)}", f"{name} {describe(array)}")
        if first is None:
            first = name, array
        elif _dtype(array) != _dtype(first[1]):
            fail(function, f"{first[0]} and {name} in one dtype", f"{first[0]} {describe(first[1])} and {name} {describe(array)}")


def not_nan(function: str, **arrays: Any) -> None:
    """No entry of a float array is NaN (None passes). On an accelerator this waits for the array to be computed."""
    for name, array in arrays.items():
        if array is None or (_is_torch(array) and array.is_meta):
            continue
        if bool((array != array).any()):
            fail(function, f"{name} without NaN", f"NaN in {name} {describe(array)}")


def integers(function: str, **arrays: Any) -> None:
    """Every array holds integers (None passes)."""
    _of_kind(function, "integers", _INTEGERS, arrays)


def numbers(function: str, **arrays: Any) -> None:
    """Every array holds integers, or floats that this side computes in (None passes)."""
    for name, array in arrays.items():
        floating = _TORCH_FLOATS if hasattr(array, "dtype") and _is_torch(array) else _NUMPY_FLOATS
        _of_kind(function, "integers or floats", (*_INTEGERS, *floating), {name: array})


def of_dtype(function: str, *dtypes: str, **arrays: Any) -> None:
    """Every array is of one of these dtypes by name, "int8" say (None passes)."""
    _of_kind(function, " or ".join(dtypes), dtypes, arrays)


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


def in_range(function: str, low: float, high: float, /, **values: Any) -> None:
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


def at_least(function: str, low: float, /, **values: Any) -> None:
    """Every number is finite and at least `low`."""
    for name, value in values.items():
        if not _is_number(value) or not low <= value < math.inf:
            fail(function, f"{name} >= {low:g} and finite", f"{name}={value!r}")


def fractions(function: str, count: int, **values: Any) -> None:
    """Every value is a tuple of `count` numbers in [0, 1): one is excluded."""
    for name, value in values.items():
        several = isinstance(value, (tuple, list)) and len(value) == count
        if not several or not all(_is_number(v) and 0 <= v < 1 for v in value):
            fail(function, f"{name} as {count} numbers in [0, 1)", f"{name}={value!r}")


def size(function: str, *, at_least: int = 1, **values: Any) -> None:
    """Every value is an integer count of at least `at_least`."""
    for name, value in values.items():
        if not _is_count(value) or value < at_least:
            fail(function, f"{name} as an integer >= {at_least}", f"{name}={value!r}")


def per_axis(function: str, axes: int, *, at_least: int = 1, **values: Any) -> tuple[int, ...]:
    """The one value as a tuple of `axes` integers of at least `at_least`; a single integer stands for all of them."""
    ((name, value),) = values.items()
    each = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(each) != axes or any(not _is_count(v) or v < at_least for v in each):
        fail(function, f"{name} as an integer >= {at_least} or {axes} of them", f"{name}={value!r}")
    return each


def inside(function: str, shape: Iterable[int], **parts: Any) -> None:
    """Every part is a (start, stop) for each axis of `shape`, with 0 ≤ start ≤ stop ≤ the axis's size (None passes)."""
    shape = tuple(shape)
    for name, part in parts.items():
        if part is None:
            continue
        pairs = [tuple(p) if isinstance(p, (tuple, list)) else () for p in part] if isinstance(part, (tuple, list)) else [()]
        fits = len(pairs) == len(shape) and all(
            len(p) == 2 and all(map(_is_count, p)) and 0 <= p[0] <= p[1] <= n
            for p, n in zip(pairs, shape, strict=False)
        )
        if not fits:
            fail(function, f"{name} as a (start, stop) inside each axis of {shape}", f"{name}={part!r}")


def cumulative(function: str, total: int, **arrays: Any) -> None:
    """Every array holds cumulative lengths: integers on one axis that begin with 0, never fall and end with `total`."""
    integers(function, **arrays)
    exact_rank(function, 1, **arrays)
    for name, array in arrays.items():
        ends = array.tolist()
        if not ends or ends[0] != 0 or ends[-1] != total or any(a > b for a, b in itertools.pairwise(ends)):
            shown = ", ".join(map(str, ends[:9])) + (", …" if len(ends) > 9 else "")
            fail(function, f"{name} as cumulative lengths, from 0 to {total} and never falling", f"[{shown}]")


def counts(function: str, total: int, **arrays: Any) -> None:
    """Every array holds how many of `total` things are of each kind: integers on one axis, none negative, that sum to `total`. On an
    accelerator this is the kernel's check: reading back stalls it."""
    integers(function, **arrays)
    exact_rank(function, 1, **arrays)
    for name, array in arrays.items():
        if _is_torch(array) and array.device.type != "cpu":
            continue
        each = array.tolist()
        if min(each, default=0) < 0 or sum(each) != total:
            shown = ", ".join(map(str, each[:9])) + (", …" if len(each) > 9 else "")
            fail(function, f"{name} as integers >= 0 that sum to {total}", f"[{shown}]")


def window(function: str, **values: Any) -> None:
    """Every value is a pair (left, right): how many keys before and after its own place a query sees; None is no limit."""
    for name, value in values.items():
        pair = isinstance(value, (tuple, list)) and len(value) == 2
        if not pair or any(v is not None and (not _is_count(v) or v < 0) for v in value):
            fail(function, f"{name} as a pair (left, right) of integers >= 0 or None", f"{name}={value!r}")


def follows(function: str, *, starts: Any, held: Any) -> None:
    """In every row the new tokens start where those that are held end. They do not after a call that broke off halfway."""
    if starts.tolist() != held.tolist():
        fail(function, f"tokens that start at {held.tolist()}, where those that it holds end (after a call that broke off, a new cache)",
             f"starts={starts.tolist()}")


def continues(function: str, **pairs: tuple[Any, Any]) -> None:
    """Every pair is (new, held): what is new (B, K, T, E) has the heads, the width and the dtype of what is held (…, K, …, E), if any."""
    for name, (new, held) in pairs.items():
        if held is not None and (new.shape[1], new.shape[3], new.dtype) != (held.shape[1], held.shape[3], held.dtype):
            fail(function, f"{name} as those that it holds, {_dtype(held)} (B, {held.shape[1]}, T, {held.shape[3]})",
                 f"{name} {describe(new)}")


def choice(function: str, options: Iterable[Any], **values: Any) -> None:
    """Every value is one of the options; the nearest one is suggested."""
    options = list(options)
    for name, value in values.items():
        if value not in options:
            near = difflib.get_close_matches(str(value), [str(o) for o in options], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            fail(function, f"{name} from {', '.join(map(repr, options))}", f"{name}={value!r}{hint}")


def ids_below(function: str, count: int, *, at_least: int = 0, **arrays: Any) -> None:
    """Every integer array has its entries in [at_least, count).

    On an accelerator this is the kernel's check, because reading back stalls it; and in what torch.compile makes, because it cannot read.
    """
    integers(function, **arrays)
    for name, array in arrays.items():
        if array is None or 0 in tuple(array.shape) or (_is_torch(array) and (array.device.type != "cpu" or _compiling())):
            continue
        array = array.long() if _is_torch(array) else array  # torch has no min of its wider unsigned integers
        low, high = int(array.min()), int(array.max())
        if low < at_least or high >= count:
            fail(function, f"{name} in [{at_least}, {count - 1}]", f"{name} from {low} to {high}")


def same_names(function: str, names: Iterable[str], **mappings: Any) -> None:
    """Every mapping has exactly these keys; for an unknown key the nearest missing one is suggested."""
    names = list(names)
    for label, mapping in mappings.items():
        if not isinstance(mapping, Mapping):
            fail(function, f"{label} as a dict of arrays by name", describe(mapping))
        missing, unknown = [n for n in names if n not in mapping], sorted(map(str, mapping.keys() - set(names)))
        if missing or unknown:
            near = difflib.get_close_matches(unknown[0], missing or names, n=1) if unknown else []
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            fail(function, f"{label} with exactly its own names", f"missing {missing}, unknown {unknown}{hint}")


def by_pattern(
    function: str, names: Iterable[str], groups: Iterable[Mapping[str, Any]] | None, check: Callable[..., None], **options: Any
) -> list[tuple[list[str], dict[str, Any]]]:
    """Sort names into groups by shell pattern: ``[(names, options), …]``, those that no pattern takes last, with the options as they are.

    A group is ``{"pattern": "*.bias", OPTION: VALUE, …}``; a name belongs to the first whose pattern matches, and a group without a name
    of its own is refused. `check(function, **options)` judges the options of each group.

    Examples
    --------
    >>> by_pattern("SGD", ["w", "b"], [{"pattern": "b", "decay": 0.0}], not_negative, decay=0.1)
    [(['b'], {'decay': 0.0}), (['w'], {'decay': 0.1})]
    """
    check(function, **options)
    left, found = list(names), []
    for i, group in enumerate(groups or ()):
        where = f"{function} groups[{i}]"
        if not isinstance(group, Mapping) or not isinstance(group.get("pattern"), str):
            fail(where, "a dict with a pattern, such as {'pattern': '*.bias', …}", describe(group))
        for key in group:
            choice(where, ("pattern", *options), key=key)
        taken = {name for name in left if fnmatch.fnmatchcase(name, group["pattern"])}
        if not taken:
            near = difflib.get_close_matches(group["pattern"], left, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            fail(where, "a pattern that matches a name which no earlier group took", f"pattern={group['pattern']!r}{hint}")
        resolved = options | {key: value for key, value in group.items() if key != "pattern"}
        check(where, **resolved)
        found.append(([name for name in left if name in taken], resolved))
        left = [name for name in left if name not in taken]
    return [*found, (left, options)] if left else found


def matching(function: str, names: Iterable[str], *, of: str = "names", **patterns: Iterable[str]) -> list[str]:
    """The dotted names that one of the shell patterns takes, whole or from a dot on, in the order of `names`; a pattern that takes none
    is refused, and the nearest names are suggested.

    Examples
    --------
    >>> matching("apply", ["blocks.0.attn.q_proj", "blocks.0.mlp.up_proj", "head"], targets=("q_proj", "blocks.*.mlp.*"))
    ['blocks.0.attn.q_proj', 'blocks.0.mlp.up_proj']
    """
    names = list(names)
    taken: set[str] = set()
    for label, wanted in patterns.items():
        if not isinstance(wanted, (tuple, list)) or not all(isinstance(pattern, str) for pattern in wanted):
            fail(function, f"{label} as a tuple of names or patterns", f"{label}={wanted!r}")
        for pattern in wanted:
            found = {n for n in names if fnmatch.fnmatchcase(n, pattern) or fnmatch.fnmatchcase(n, f"*.{pattern}")}
            if not found:
                pool = dict.fromkeys([n.rpartition(".")[2] for n in names] + names)
                near = difflib.get_close_matches(pattern, pool, n=3) or [*pool][:8]
                fail(function, f"{label} that match some of the model's {of}", f"{pattern!r}, which matches none (near: {', '.join(near)})")
            taken |= found
    return [name for name in names if name in taken]


def _of_kind(function: str, kind: str, allowed: tuple[str, ...], arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        if array is not None and (not hasattr(array, "dtype") or _dtype(array) not in allowed):
            fail(function, f"{name} as an array of {kind}", f"{name} {describe(array)}")


def _dtype(array: Any) -> str:
    return _written(array.dtype).removeprefix("torch.")


def _is_torch(array: Any) -> bool:
    return _written(array.dtype).startswith("torch.")


def _compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


@functools.cache
def _written(dtype: Any) -> str:
    return str(dtype)  # NumPy puts this name together in 5 µs, several times for every array of every call


def _is_count(value: Any) -> bool:
    """Whether it is one integer. Every array has an __index__, whatever it holds, and however much."""
    if hasattr(value, "dtype"):
        return _dtype(value) in _INTEGERS and tuple(value.shape) == ()
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
