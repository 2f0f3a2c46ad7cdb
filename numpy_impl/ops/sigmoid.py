"""The two classic squashing functions: the logistic sigmoid and the hyperbolic tangent."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats
from numpy_impl.ops._blocks import by_blocks


def sigmoid(x: NDArray) -> tuple[NDArray, Callable]:
    """y = σ(x) = 1 / (1 + exp(−x)).

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x   in [0, 1]
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = sigmoid(np.array([-2.0, 0.0, 2.0]))
    >>> y.round(4)
    array([0.1192, 0.5   , 0.8808])
    >>> backward(np.ones(3)).round(4)
    array([0.105, 0.25 , 0.105])
    """
    floats("sigmoid", x=x)
    y = by_blocks(_sigmoid, x)

    def backward(dy):
        # σ′ = exp(−x) / (1 + exp(−x))² = σ (1 − σ)
        def fill(dy, y, dx):
            np.subtract(1, y, out=dx)
            dx *= y
            dx *= dy

        return by_blocks(fill, dy, y)

    return y, backward


def tanh(x: NDArray) -> tuple[NDArray, Callable]:
    """y = tanh(x) = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ).

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x   in [−1, 1]
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = tanh(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(4)
    array([-0.7616,  0.    ,  0.7616])
    >>> backward(np.ones(3)).round(4)
    array([0.42, 1.  , 0.42])
    """
    floats("tanh", x=x)
    y = by_blocks(np.tanh, x)

    def backward(dy):
        # The quotient rule: tanh′ = (cosh² − sinh²) / cosh² = 1 − tanh²
        def fill(dy, y, dx):
            np.multiply(y, y, out=dx)
            np.subtract(1, dx, out=dx)
            dx *= dy

        return by_blocks(fill, dy, y)

    return y, backward


def _sigmoid(x: NDArray, y: NDArray) -> None:
    """y = σ(x) for a piece of an array; y may be x. Where exp(−x) overflows, 1 / ∞ is the right 0."""
    np.negative(x, out=y)
    np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)
