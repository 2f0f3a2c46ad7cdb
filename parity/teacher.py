"""What a wrong result usually means: from the expected and the got array to a sentence that helps."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLOSE = 1e-6


def hints(expected: Any, got: Any, *, gradient: bool, sizes: Iterable[int] = ()) -> list[str]:
    """What the pattern of a disagreement suggests, most telling first; empty where nothing fits.

    sizes : how many entries a sum or a mean of the inputs may have run over (see `counts`)
    """
    if expected is None or got is None:
        return ["an optional array that was not given has the gradient None, one that was given has an array"] if gradient else []
    expected, got = np.asarray(expected), np.asarray(got)
    if expected.dtype.kind != "f" or got.dtype.kind != "f":
        return []
    with np.errstate(all="ignore"):
        if expected.shape != got.shape:
            return list(_about_shapes(expected, got, gradient))
        return list(_about_values(expected.astype(np.float64), got.astype(np.float64), gradient, set(sizes)))


def counts(shapes: Iterable[tuple[int, ...]]) -> set[int]:
    """The lengths over which these arrays can be reduced: each axis, all leading axes together, everything."""
    found = {n for shape in shapes for n in (*shape, math.prod(shape[:-1]), math.prod(shape))}
    return {n for n in found if n > 1}


def _about_shapes(expected: NDArray, got: NDArray, gradient: bool) -> Iterator[str]:
    if sorted(expected.shape) == sorted(got.shape) and expected.ndim == got.ndim:
        yield "the axes stand in another order: a missing (or needless) transpose"
    elif gradient and got.size > expected.size:
        yield (
            "the array was broadcast in the forward: its gradient must be summed over the axes along which it was repeated "
            f"(here {got.shape} back to {expected.shape})"
        )
    elif expected.size == got.size:
        yield "the number of entries is right and the shape is not: a missing reshape, or keepdims in a reduction"
    elif got.ndim < expected.ndim:
        yield "an axis was reduced that should have been kept"


def _about_values(expected: NDArray, got: NDArray, gradient: bool, sizes: set[int]) -> Iterator[str]:
    finite = np.isfinite(expected) & np.isfinite(got)
    if (~np.isfinite(got) & np.isfinite(expected)).any():
        yield (
            "NaN or infinity where a number was expected: an exp that overflows (subtract the row's maximum first), a division by 0, "
            "or a row in which everything is masked"
        )
        return
    if not finite.all() or not expected.size:
        return
    size = np.abs(expected).max()
    if size == 0:
        yield "everything should be 0 here: is something masked, dropped or constant that still gets a value?"
        return
    if not got.any():
        yield "everything is 0: the gradient was never computed, or was multiplied by a mask of zeros"
        return

    def same(candidate: NDArray) -> bool:
        return bool(np.abs(candidate - expected).max() <= CLOSE * size)

    if same(-got):
        yield "the sign is wrong everywhere: a dropped minus"
        return
    if expected.ndim >= 2 and expected.shape[-1] == expected.shape[-2] and same(np.swapaxes(got, -1, -2)):
        yield "this is the transpose of the right answer"
        return
    yield from _about_a_factor(expected, got, size, sizes | counts([expected.shape]))
    yield from _about_a_shift(expected, got, size, gradient)
    wrong = np.abs(got - expected) > CLOSE * size
    yield from _about_places(expected, got, wrong)
    worst = np.abs(got - expected).max() / size
    if 0 < worst < 1e-2:
        yield (
            f"it is nearly right (off by {worst:.1e} of scale): a constant with too few digits, ε on the other side of a root or of a "
            "maximum, an approximate formula for an exact one, or a variance over n−1 instead of n"
        )


def _about_a_factor(expected: NDArray, got: NDArray, size: float, sizes: set[int]) -> Iterator[str]:
    weight = float((expected * got).sum())
    factor = weight / float((expected * expected).sum())
    if expected.size == 1 and not sizes:
        return  # one number is a multiple of any other
    if not (np.abs(got - factor * expected).max() <= CLOSE * abs(factor) * size) or abs(factor - 1) < 1e-9:
        return
    for n in sorted(sizes):
        if abs(factor - n) < CLOSE * n:
            yield f"everything is {n} times too large, and {n} is how many entries there are to sum over: a sum that should be a mean"
            return
        if abs(factor * n - 1) < CLOSE:
            yield f"everything is {n} times too small, and {n} is how many entries there are to sum over: a mean that should be a sum"
            return
    yield (
        f"everything is {factor:.6g} times the right answer: a factor is missing or doubled (a scale, a temperature, 1/(1−p), "
        "the 2 of a square)"
    )


def _about_a_shift(expected: NDArray, got: NDArray, size: float, gradient: bool) -> Iterator[str]:
    gap = got - expected
    for axis in range(expected.ndim):
        if expected.shape[axis] < 2:
            continue
        if np.abs(gap - gap.mean(axis, keepdims=True)).max() <= CLOSE * size:
            what = "the term that comes off through the mean or the normaliser" if gradient else "a shift that is constant along it"
            yield f"the error is constant along axis {axis}: {what} is missing"
            return
        for step in (1, -1):
            moved = np.roll(got, step, axis)
            inner = np.take(moved, range(1, expected.shape[axis] - 1), axis) if expected.shape[axis] > 2 else moved
            right = np.take(expected, range(1, expected.shape[axis] - 1), axis) if expected.shape[axis] > 2 else expected
            if inner.size and np.abs(inner - right).max() <= CLOSE * size:
                yield f"the right values stand one place further along axis {axis}: an index that is off by one"
                return


def _about_places(expected: NDArray, got: NDArray, wrong: NDArray) -> Iterator[str]:
    if wrong.all() or not wrong.any():
        return
    share = f"{int(wrong.sum())} of {wrong.size} entries are wrong"
    if wrong.ndim >= 2 and min(wrong.shape[-2:]) >= 2:
        rows = np.arange(wrong.shape[-2])[:, None] + (wrong.shape[-1] - wrong.shape[-2])
        offsets = np.broadcast_to(np.arange(wrong.shape[-1])[None, :] - rows, wrong.shape)[wrong]
        if len(np.unique(offsets)) == 1:
            yield f"{share}, all on one diagonal: a mask that is off by one"
            return
    for axis in range(wrong.ndim):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        lines = wrong.any(others)
        if 0 < lines.sum() <= max(1, wrong.shape[axis] // 4) and wrong.shape[axis] > 1:
            at = ", ".join(map(str, np.flatnonzero(lines)[:4]))
            yield f"{share}, all at index {at} of axis {axis}: an edge case (the first or last, a masked, padded or ignored one)"
            return
    yield f"{share}: look at what is special about them (zeros, ties, repeated ids, masked or clipped entries)"
