"""Rectified linear units: plain, squared and leaky."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, in_range
from numpy_impl.ops._blocks import by_blocks


def relu(x: NDArray) -> tuple[NDArray, Callable]:
    """y = max(x, 0).  (Nair & Hinton 2010)

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x
    backward : dy -> dx   dy where x > 0, else 0; at the kink itself 0

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = relu(np.array([-1.0, 0.0, 2.0]))
    >>> y
    array([0., 0., 2.])
    >>> backward(np.ones(3))
    array([0., 0., 1.])
    """
    floats("relu", x=x)
    y = by_blocks(lambda x, y: np.maximum(x, 0, out=y), x)

    def backward(dy):
        # A product instead of a selection, and of floats instead of mixed dtypes: both are much faster in NumPy.
        return by_blocks(lambda dy, y, dx: np.multiply(dy, (y > 0).astype(dy.dtype), out=dx), dy, y)

    return y, backward


def relu_squared(x: NDArray) -> tuple[NDArray, Callable]:
    """y = max(x, 0)².  (So et al. 2021, Primer, arXiv:2109.08668)

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x
    backward : dy -> dx   dy · 2 max(x, 0)

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = relu_squared(np.array([-1.0, 0.0, 3.0]))
    >>> y
    array([0., 0., 9.])
    >>> backward(np.ones(3))
    array([0., 0., 6.])
    """
    floats("relu_squared", x=x)
    positive = by_blocks(lambda x, y: np.maximum(x, 0, out=y), x)

    def backward(dy):
        def fill(dy, positive, dx):
            np.multiply(dy, positive, out=dx)
            dx *= 2

        return by_blocks(fill, dy, positive)

    return by_blocks(np.square, positive), backward


def leaky_relu(x: NDArray, *, negative_slope: float = 0.01) -> tuple[NDArray, Callable]:
    """y = x where x > 0, else negative_slope · x.  (Maas, Hannun & Ng 2013)

    Parameters
    ----------
    x : any shape, float32 or float64
    negative_slope : float in [0, 1]

    Returns
    -------
    y : like x
    backward : dy -> dx   dy where x > 0, else negative_slope · dy; so too at the kink itself

    Raises
    ------
    ValueError   if x is not float32 or float64, or negative_slope is outside [0, 1]

    Examples
    --------
    >>> y, backward = leaky_relu(np.array([-1.0, 0.0, 2.0]), negative_slope=0.1)
    >>> y
    array([-0.1,  0. ,  2. ])
    >>> backward(np.ones(3))
    array([0.1, 0.1, 1. ])
    """
    floats("leaky_relu", x=x)
    in_range("leaky_relu", 0, 1, negative_slope=negative_slope)

    def scaled(x, sign, y):
        # y = s · x with s = 1 where sign > 0, else negative_slope, as a product: NumPy multiplies much faster than it selects.
        s = (sign > 0).astype(x.dtype)
        np.maximum(s, negative_slope, out=s)
        np.multiply(s, x, out=y)

    y = by_blocks(scaled, x, x)

    def backward(dy):
        return by_blocks(scaled, dy, y)         # the same s: y has the sign of x, or is 0

    return y, backward
