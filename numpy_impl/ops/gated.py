"""Gated linear units (Dauphin et al. 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202): one half opens the door for the other.

All have the derivatives of a product: y = act(gate) · up gives ∂y/∂up = act(gate) and ∂y/∂gate = act′(gate) · up. The forward has both at
hand and keeps them; the backward is one product with each.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, same_shape
from numpy_impl.ops._blocks import by_blocks, chain_rule
from numpy_impl.ops.gelu import _gelu, _gelu_tanh
from numpy_impl.ops.sigmoid import _sigmoid
from numpy_impl.ops.silu import _silu


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
    return _gated("glu", _sigmoid_and_slope, gate, up)


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
    return _gated("reglu", _relu_and_slope, gate, up)


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
    return _gated("geglu", _gelu, gate, up)


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
    return _gated("geglu_tanh", _gelu_tanh, gate, up)


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
    return _gated("swiglu", _silu, gate, up)


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
    _checked("bilinear", gate, up)

    def backward(dy):
        return chain_rule(dy, up), chain_rule(dy, gate)

    return np.asarray(gate * up), backward


def _gated(name: str, activation: Callable, gate: NDArray, up: NDArray) -> tuple[NDArray, Callable]:
    """y = act(gate) · up; activation(x, y, slope, scratch) writes act(x) into y and act′(x) into slope, for a piece of an array."""
    _checked(name, gate, up)

    def fill(gate, up, y, by_gate, by_up, scratch):
        activation(gate, by_up, by_gate, scratch)       # ∂y/∂up = act(gate)
        np.multiply(by_up, up, out=y)
        by_gate *= up                                   # ∂y/∂gate = act′(gate) · up

    y, by_gate, by_up = by_blocks(fill, gate, up, outputs=3, scratch=6)  # as many rows as GELU needs, which needs most

    def backward(dy):
        return chain_rule(dy, by_gate), chain_rule(dy, by_up)

    return y, backward


def _sigmoid_and_slope(x: NDArray, y: NDArray, slope: NDArray, scratch: NDArray) -> None:
    _sigmoid(x, y)
    np.subtract(1, y, out=slope)                        # σ′ = σ (1 − σ)
    slope *= y


def _relu_and_slope(x: NDArray, y: NDArray, slope: NDArray, scratch: NDArray) -> None:
    np.maximum(x, 0, out=y)
    slope[:] = y > 0


def _checked(name: str, gate: NDArray, up: NDArray) -> None:
    floats(name, gate=gate, up=up)
    same_shape(name, gate.shape, up=up)
