"""One linear map for each expert, applied to rows that stand in expert order: a matrix product for each expert that has rows."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import counts as check_counts
from byhand.checks import exact_rank, floats, same_shape
from numpy_impl.moe._rows import active


def grouped_linear(x: NDArray, weight: NDArray, bias: NDArray | None = None, *, counts: NDArray) -> tuple[NDArray, Callable]:
    """y[rows of e] = x[rows of e] · weight[e]ᵀ + bias[e]  for every expert e.

    The first counts[0] rows are those of expert 0, the next counts[1] those of expert 1, and so on.

    Parameters
    ----------
    x : (M, I)          rows in expert order, float32 or float64
    weight : (E, O, I)  a matrix for each expert
    bias : (E, O)       optional
    counts : (E,)       integers: how many rows each expert has; they sum to M

    Returns
    -------
    y : (M, O)
    backward : dy (M, O) -> dx (M, I), dweight (E, O, I), dbias (E, O) or None; of an expert without rows, exactly 0

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, or counts are negative or do not sum to M

    Examples
    --------
    >>> weight = np.array([[[1.0, 0.0]], [[5.0, 5.0]], [[0.0, 2.0]]])
    >>> y, backward = grouped_linear(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), weight, counts=np.array([1, 0, 2]))
    >>> y.ravel()
    array([ 1.,  8., 12.])
    >>> dx, dweight, dbias = backward(np.ones((3, 1)))
    >>> dweight.reshape(3, 2), dbias
    (array([[ 1.,  2.],
           [ 0.,  0.],
           [ 8., 10.]]), None)
    """
    floats("grouped_linear", x=x, weight=weight, bias=bias)
    exact_rank("grouped_linear", 2, x=x)
    exact_rank("grouped_linear", 3, weight=weight)
    experts, outputs, inputs = weight.shape
    same_shape("grouped_linear", (len(x), inputs), x=x)
    same_shape("grouped_linear", (experts, outputs), bias=bias)
    check_counts("grouped_linear", len(x), counts=counts)
    same_shape("grouped_linear", (experts,), counts=counts)

    y = np.empty((len(x), outputs), x.dtype)
    for e, rows in active(counts):
        np.matmul(x[rows], weight[e].T, out=y[rows])
        if bias is not None:
            y[rows] += bias[e]

    def backward(dy):
        # Each expert is a linear map of its own: dx = dy · W, dW = dyᵀ · x and db = Σ dy, over its own rows alone.
        dx, dweight = np.empty(x.shape, x.dtype), np.zeros(weight.shape, weight.dtype)
        dbias = None if bias is None else np.zeros(bias.shape, bias.dtype)
        for e, rows in active(counts):
            np.matmul(dy[rows], weight[e], out=dx[rows])
            np.matmul(dy[rows].T, x[rows], out=dweight[e])
            if dbias is not None:
                np.sum(dy[rows], axis=0, out=dbias[e])
        return dx, dweight, dbias

    return y, backward
