"""The shift of relative positions (Dai et al. 2019, arXiv:1901.02860, appendix B)."""

from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import at_least_rank, floats, size
from numpy_impl.positions._distances import skew, unskew


def relative_shift(x: NDArray, *, keys: int | None = None) -> tuple[NDArray, Callable]:
    """y[t, s] = x[t, s + T − 1 − t],  0 where x has no such column: from products with distances to scores of keys.

    Column j of x belongs to the distance S − 1 − j. Query t stands beside key t + S − T, so that key s is at the distance t + S − T − s,
    which is column s + T − 1 − t: the last query's row stays where it is, and each row above it moves one place further to the left.
    With as many columns as keys, x knows the distances S − 1 … 0, and a key after its query scores 0; with S + T − 1 columns, down to
    the distance 1 − T, it knows them all.

    Parameters
    ----------
    x : (..., T, L)   products of queries with what stands for the distances S − 1, S − 2, …; float32 or float64
    keys : int        S; as many as x has columns by default

    Returns
    -------
    y : (..., T, S)
    backward : dy (..., T, S) -> dx (..., T, L)

    Raises
    ------
    ValueError   if x has less than two axes or is not float32 or float64, or keys is negative or no integer

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = relative_shift(np.array([[2.0, 1.0, 0.0], [12.0, 11.0, 10.0]]))      # distances 2, 1, 0 from either query
    >>> y
    array([[ 1.,  0.,  0.],
           [12., 11., 10.]])
    >>> backward(np.ones((2, 3)))
    array([[0., 1., 1.],
           [1., 1., 1.]])
    """
    floats("relative_shift", x=x)
    at_least_rank("relative_shift", 2, x=x)
    columns = x.shape[-1]
    keys = columns if keys is None else keys
    size("relative_shift", at_least=0, keys=keys)
    # To move entries and leave some out is a matrix of zeros and ones; its transpose moves them back, and leaves 0 where none came from.
    return skew(x, keys), lambda dy: unskew(dy, columns)
