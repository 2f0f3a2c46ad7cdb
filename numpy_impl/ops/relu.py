"""Rectified linear units: plain, squared and leaky."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, not_negative
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
    kept = np.asarray(x > 0)

    def backward(dy):
        return np.asarray(dy * kept)

    return np.asarray(np.maximum(x, 0)), backward


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
    positive = np.maximum(x, 0)

    def backward(dy):
        dx = dy * positive
        dx *= 2
        return np.asarray(dx)

    return np.asarray(positive * positive), backward


def leaky_relu(x: NDArray, *, negative_slope: float = 0.01) -> tuple[NDArray, Callable]:
    """y = x where x > 0, else negative_slope · x.  (Maas, Hannun & Ng 2013)

    Parameters
    ----------
    x : any shape, float32 or float64
    negative_slope : float ≥ 0

    Returns
    -------
    y : like x
    backward : dy -> dx   dy where x > 0, else negative_slope · dy; so too at the kink itself

    Raises
    ------
    ValueError   if x is not float32 or float64, or negative_slope < 0 or not finite

    Examples
    --------
    >>> y, backward = leaky_relu(np.array([-1.0, 0.0, 2.0]), negative_slope=0.1)
    >>> y
    array([-0.1,  0. ,  2. ])
    >>> backward(np.ones(3))
    array([0.1, 0.1, 1. ])
    """
    floats("leaky_relu", x=x)
    not_negative("leaky_relu", negative_slope=negative_slope)
    kept = np.asarray(x > 0)

    def forward(x, y):
        np.minimum(x, 0, out=y)
        y *= negative_slope
        y += np.maximum(x, 0)

    def backward(dy):
        def fill(dy, kept, dx):
            # A selection as arithmetic, which NumPy does faster than np.where: the slope times what is not kept, and the rest.
            passed = dy * kept
            np.subtract(dy, passed, out=dx)
            dx *= negative_slope
            dx += passed

        return by_blocks(fill, dy, kept)

    return by_blocks(forward, x), backward
