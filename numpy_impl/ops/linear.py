"""The linear map of the last axis: one matrix product forward, two backward; one where the matrix is not trained."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, exact_rank, floats, same_shape
from numpy_impl.ops._product import product


def linear(x: NDArray, weight: NDArray, bias: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = x Wᵀ + b  over the last axis.

    Parameters
    ----------
    x : (..., I)     inputs, float32 or float64
    weight : (O, I)  W, one row an output
    bias : (O,)      b, optional

    Returns
    -------
    y : (..., O)
    backward : dy (..., O) -> dx (..., I), dweight (O, I), dbias (O,) or None

    Raises
    ------
    ValueError   if the widths of x and weight differ, bias is not of shape (O,), or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]), np.array([0.5, 0.0, 0.0]))
    >>> y
    array([[11.5, 17. , 23. ]])
    """
    floats("linear", x=x, weight=weight, bias=bias)
    at_least_rank("linear", 1, x=x)
    exact_rank("linear", 2, weight=weight)
    same_shape("linear", (weight.shape[0], x.shape[-1]), weight=weight)
    same_shape("linear", weight.shape[:1], bias=bias)

    x_shape, rows = x.shape, math.prod(x.shape[:-1])
    flat = x.reshape(rows, x_shape[-1])                 # (N, I): all leading axes are one, so that it is a single product
    y = product(flat, weight)                           # (N, O)
    if bias is not None:
        y += bias

    def backward(dy):
        # y[n,o] = Σ_i x[n,i] W[o,i] + b[o]. Whatever index a gradient lacks is summed over:
        # dx[n,i] = Σ_o dy[n,o] W[o,i];   dW[o,i] = Σ_n dy[n,o] x[n,i];   db[o] = Σ_n dy[n,o].
        dflat = dy.reshape(rows, weight.shape[0])
        dbias = None if bias is None else np.ones(rows, dy.dtype) @ dflat   # a sum over n is a product with ones, and faster as one
        return (dflat @ weight).reshape(x_shape), dflat.T @ flat, dbias

    return y.reshape(*x_shape[:-1], weight.shape[0]), backward


def frozen_linear(x: NDArray, bias: NDArray | None = None, *, weight: NDArray) -> tuple[NDArray, Callable]:
    """y = x Wᵀ + b  with a W that is not trained: what an adapter stands on.

    dW would be the one gradient that reads x, so x need not be kept until the backward, and a third of the work is not done.

    Parameters
    ----------
    x : (..., I)     inputs, float32 or float64
    bias : (O,)      b, optional
    weight : (O, I)  W, a constant

    Returns
    -------
    y : (..., O)
    backward : dy (..., O) -> dx (..., I), dbias (O,) or None

    Raises
    ------
    ValueError   as `linear` does

    Examples
    --------
    >>> y, backward = frozen_linear(np.array([[1.0, 2.0]]), weight=np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    >>> dx, dbias = backward(np.array([[1.0, 0.0, 1.0]]))
    >>> y, dx, dbias
    (array([[11., 17., 23.]]), array([[10., 12.]]), None)
    """
    y, _ = linear(x, weight, bias)
    shape, biased = x.shape, bias is not None

    def backward(dy):
        dflat = dy.reshape(math.prod(shape[:-1]), weight.shape[0])      # (N, O)
        dbias = np.ones(len(dflat), dy.dtype) @ dflat if biased else None
        return (dflat @ weight).reshape(shape), dbias

    return y, backward
