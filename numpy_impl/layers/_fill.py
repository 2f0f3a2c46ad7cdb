"""Random starting values, written piece by piece: NumPy draws in float64, and twice the size of a large table need not exist for them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 17  # numbers drawn at once, 1 MiB


def fill_normal(array: NDArray, rng: np.random.Generator, deviation: float = 1.0) -> None:
    """array ← deviation · N(0, 1), in place: the numbers that one draw of the whole shape would give."""
    _fill(array, lambda count: deviation * rng.standard_normal(count))


def fill_uniform(array: NDArray, rng: np.random.Generator, bound: float) -> None:
    """array ← uniform in ±bound, in place: the numbers that one draw of the whole shape would give."""
    _fill(array, lambda count: rng.uniform(-bound, bound, count))


def _fill(array: NDArray, draw: Callable[[int], NDArray]) -> None:
    flat = array.reshape(-1)                        # a view: what is filled is contiguous
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        piece[...] = draw(piece.size)
