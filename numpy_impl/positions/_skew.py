"""Between what is counted by key and what is counted by distance, without an index: reading a table with a row length that is off by one.

Distances fall by one from a key to the next and rise by one from a query to the next, so that in a table of (query, distance) the entries
of one key lie on a diagonal. In memory, where row n starts at n · W, a diagonal is a column once rows are taken to be W − 1 numbers long.
"""

import numpy as np
from numpy.typing import NDArray


def skew(x: NDArray, columns: int) -> NDArray:
    """y[n, c] = x[n, c + N − 1 − n],  0 where x has ended: each row moves one place further to the right than the one above it.

    x (..., N, M) -> y (..., N, columns), a view of a padded copy.

    Examples
    --------
    >>> skew(np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]), 3)
    array([[ 3,  4,  0],
           [ 6,  7,  8],
           [ 9, 10, 11]])
    """
    padded, skewed = _both(x, columns, x.shape[-1])
    padded[..., :x.shape[-1]] = x
    return skewed


def unskew(y: NDArray, columns: int) -> NDArray:
    """x[n, c + N − 1 − n] = y[n, c],  0 elsewhere: the transpose of `skew` as a linear map, and so its pullback.

    y (..., N, M) -> x (..., N, columns), a view of a padded copy.

    Examples
    --------
    >>> unskew(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), 4)
    array([[0, 0, 1, 2],
           [0, 4, 5, 6],
           [7, 8, 9, 0]])
    """
    padded, skewed = _both(y, y.shape[-1], columns)
    skewed[...] = y
    return padded[..., :columns]


def _both(like: NDArray, skewed_columns: int, columns: int) -> tuple[NDArray, NDArray]:
    """Two views of the same zeros: (..., N, W) with W ≥ columns, and (..., N, skewed_columns), whose rows start one place earlier each."""
    *lead, n, _ = like.shape
    width = max(columns, skewed_columns + n, 1)
    flat = np.zeros((*lead, n * width), like.dtype)
    # Entry (n, c) of the second stands at n · W + c + N − 1 − n = (N − 1) + n (W − 1) + c.
    skewed = flat[..., n - 1:n * width - 1].reshape(*lead, n, width - 1)[..., :skewed_columns]
    return flat.reshape(*lead, n, width), skewed
