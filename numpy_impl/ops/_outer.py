"""a bᵀ as a product of two thin matrices: how a number per row, or per row and per column, is spread over a matrix."""

import numpy as np
from numpy.typing import NDArray

# Where NumPy multiplies an (N, 1) by a (D,), it starts its loop anew for every row, which for rows of a few hundred numbers takes as long
# as the numbers themselves. BLAS fills the same matrix in one go, but NumPy hands it a product only where the two have at least two
# columns and rows in common. Hence the zeros: a bᵀ + 0 0ᵀ, in a third of the time.


def column(a: NDArray) -> NDArray:
    """a (N,) -> (N, 2), zeros in the second column, so that column(a) @ row(b) is a bᵀ.

    Examples
    --------
    >>> column(np.array([1.0, 2.0])) @ row(np.array([3.0, 4.0, 5.0]))
    array([[ 3.,  4.,  5.],
           [ 6.,  8., 10.]])
    """
    wide = np.zeros((len(a), 2), a.dtype)
    wide[:, 0] = a
    return wide


def row(b: NDArray) -> NDArray:
    """b (D,) -> (2, D), zeros in the second row."""
    tall = np.zeros((2, len(b)), b.dtype)
    tall[0] = b
    return tall
