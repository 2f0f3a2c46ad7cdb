"""Between what is counted by key and what is counted by distance.

Distances fall by one from a key to the next and rise by one from a query to the next, so that in a table of (query, distance) the entries
of one key lie on a diagonal. In memory, where row n starts at n · W, a diagonal is a column once rows are taken to be W − 1 numbers long.
"""

import numpy as np
from numpy.typing import NDArray


def skew(x: NDArray, columns: int) -> NDArray:
    """y[n, c] = x[n, c + N − 1 − n],  0 where x has ended: each row moves one place further to the right than the one above it.

    x (..., N, M) -> y (..., N, columns): a view of a padded copy.

    Examples
    --------
    >>> skew(np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]), 3)
    array([[ 3,  4,  0],
           [ 6,  7,  8],
           [ 9, 10, 11]])
    """
    *lead, n, m = x.shape
    padded = np.zeros((*lead, n, max(m, columns + n)), x.dtype)
    padded[..., :m] = x
    return skewed(padded, columns)


def unskew(y: NDArray, columns: int) -> NDArray:
    """x[n, c + N − 1 − n] = y[n, c],  0 elsewhere: the transpose of `skew` as a linear map, and so its pullback.

    y (..., N, M) -> x (..., N, columns): a view of a padded copy.

    Examples
    --------
    >>> unskew(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), 4)
    array([[0, 0, 1, 2],
           [0, 4, 5, 6],
           [7, 8, 9, 0]])
    """
    *lead, n, m = y.shape
    padded = np.zeros((*lead, n, max(columns, m + n)), y.dtype)
    skewed(padded, m)[...] = y
    return padded[..., :columns]


def skewed(x: NDArray, columns: int) -> NDArray:
    """`skew` of an x (..., N, W) with W ≥ columns + N, as a view of it where x lies row by row in memory.

    Examples
    --------
    >>> skewed(np.arange(12).reshape(3, 4), 1)
    array([[2],
           [5],
           [8]])
    """
    *lead, n, width = x.shape
    # Entry (n, c) stands at n · W + c + N − 1 − n = (N − 1) + n (W − 1) + c: rows of W − 1 numbers, after the first N − 1.
    rows = x.reshape(*lead, n * width)[..., n - 1:-1].reshape(*lead, n, max(width - 1, columns))
    return rows[..., :columns]


def sum_runs(x: NDArray, ids: NDArray, count: int) -> NDArray:
    """y[i] = Σ x[j]  over the j with ids[j] = i,  where equal ids follow each other: the pullback of y[ids].

    x (..., M), ids (M,) in [0, count) -> y (..., count)

    Examples
    --------
    >>> sum_runs(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2, 2, 2, 0]), 3)
    array([4., 0., 6.])
    """
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    y = np.zeros((*x.shape[:-1], count), x.dtype)
    y[..., ids[first]] = np.add.reduceat(x, first, axis=-1)
    return y
