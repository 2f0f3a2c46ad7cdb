"""Arrays put together of others, on disk or not, and what is asked of either without reading all of it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.hugging_face.on_disk import OnDisk


class Stacked:
    """Arrays of one shape, on disk or not, as one with an axis in front: `stacked[e]` is one of them, and `target[...] = stacked` reads one
    after the other.

    Examples
    --------
    >>> stacked = Stacked([np.zeros(3), np.ones(3)])
    >>> stacked.shape, stacked[1], np.asarray(stacked).sum()
    ((2, 3), array([1., 1., 1.]), np.float64(3.0))
    """

    def __init__(self, parts: Sequence[Any]):
        self.shape, self.dtype = (len(parts), *parts[0].shape), np.result_type(*(part.dtype for part in parts))
        self.parts = tuple(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        array = np.empty(self.shape, self.dtype if dtype is None else dtype)
        self.read_into(array)
        return array

    def __getitem__(self, e: int) -> Any:
        return self.parts[e]

    def read_into(self, target: NDArray) -> None:
        """target ← the arrays, one after the other."""
        for e, part in enumerate(self.parts):
            read_into(target[e], part)


class Joined:
    """Arrays, on disk or not, side by side along their last axis, joined only when they are wanted.

    Examples
    --------
    >>> joined = Joined([np.zeros((2, 1)), np.ones((2, 2))])
    >>> joined.shape, np.asarray(joined)[0]
    ((2, 3), array([0., 1., 1.]))
    """

    def __init__(self, parts: Sequence[Any]):
        self.shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.parts = tuple(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        array = np.concatenate([np.asarray(part) for part in self.parts], axis=-1)
        return array if dtype is None else array.astype(dtype, copy=False)


def read_into(target: NDArray, array: Any) -> None:
    """target ← an array, on disk or not, cast."""
    if isinstance(array, OnDisk | Stacked):
        array.read_into(target)
    else:
        target[...] = array


def stored_as(array: Any) -> str:
    """The dtype in which an array is kept, "bfloat16" too, which NumPy lacks.

    Examples
    --------
    >>> stored_as(np.zeros(2, np.float16))
    'float16'
    """
    if isinstance(array, Stacked | Joined):
        kept = {stored_as(part) for part in array.parts}
        return kept.pop() if len(kept) == 1 else str(array.dtype)
    return "bfloat16" if isinstance(array, OnDisk) and array.kind == "BF16" else str(array.dtype.newbyteorder("="))


def same_values(one: Any, other: Any) -> bool:
    """Whether two arrays, on disk or not, hold the same numbers (NaN beside NaN), looked at a few rows at a time.

    Examples
    --------
    >>> same_values(np.array([1.0, np.nan]), np.array([1, np.nan], np.float32)), same_values(np.zeros(2), np.zeros((2, 2)))
    (True, False)
    """
    if one.shape != other.shape:
        return False
    if not one.shape:
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    rows = max(1, (1 << 20) // max(1, math.prod(one.shape[1:])))
    return all(np.array_equal(np.asarray(one[start : start + rows]), np.asarray(other[start : start + rows]), equal_nan=True)
               for start in range(0, one.shape[0], rows))
