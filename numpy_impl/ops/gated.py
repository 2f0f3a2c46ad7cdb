"""Gated linear units (Dauphin et al. 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202): one half opens the door for the other.

All have the derivative of a product: with a = act(gate), y = a · up gives dup = dy · a and da = dy · up, and the activation's own
pullback takes da to dgate.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, same_shape
from numpy_impl.ops.gelu import gelu, gelu_tanh
from numpy_impl.ops.relu import relu
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.silu import silu


def glu(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = σ(gate) · up.

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = glu(np.array([0.0, 2.0]), np.array([3.0, 3.0]))
    >>> y.round(4)
    array([1.5   , 2.6424])
    >>> dgate, dup = backward(np.ones(2))
    >>> dup.round(4)
    array([0.5   , 0.8808])
    """
    return _gated("glu", sigmoid, gate, up)


def reglu(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = max(gate, 0) · up.

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = reglu(np.array([-1.0, 2.0]), np.array([3.0, 3.0]))
    >>> backward(np.ones(2))
    (array([0., 3.]), array([0., 2.]))
    """
    return _gated("reglu", relu, gate, up)


def geglu(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = GELU(gate) · up, with the exact GELU.

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = geglu(np.array([-1.0, 2.0]), np.array([3.0, 3.0]))
    >>> y.round(4)
    array([-0.476 ,  5.8635])
    """
    return _gated("geglu", gelu, gate, up)


def geglu_tanh(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = GELU(gate) · up, with the tanh form of GELU (T5 v1.1, Gemma).

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = geglu_tanh(np.array([-1.0, 2.0]), np.array([3.0, 3.0]))
    >>> y.round(4)
    array([-0.4764,  5.8638])
    """
    return _gated("geglu_tanh", gelu_tanh, gate, up)


def swiglu(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = SiLU(gate) · up.

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = swiglu(np.array([-1.0, 2.0]), np.array([3.0, 3.0]))
    >>> y.round(4)
    array([-0.8068,  5.2848])
    """
    return _gated("swiglu", silu, gate, up)


def bilinear(gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = gate · up: a gated unit without an activation.

    Parameters
    ----------
    gate, up : one shape, float32 or float64

    Returns
    -------
    y : like gate
    backward : dy -> dgate, dup

    Raises
    ------
    ValueError   if the shapes or dtypes differ, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = bilinear(np.array([-1.0, 2.0]), np.array([3.0, 4.0]))
    >>> backward(np.ones(2))
    (array([3., 4.]), array([-1.,  2.]))
    """
    return _gated("bilinear", _identity, gate, up)


def _gated(name: str, activation: Callable, gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    floats(name, gate=gate, up=up)
    same_shape(name, gate.shape, up=up)
    a, activation_backward = activation(gate)

    def backward(dy):
        return activation_backward(np.asarray(dy * up)), np.asarray(dy * a)

    return np.asarray(a * up), backward


def _identity(x: NDArray) -> tuple[NDArray, Callable]:
    return x, lambda dy: dy
