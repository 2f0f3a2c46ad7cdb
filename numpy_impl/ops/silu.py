"""Smooth relatives of the rectifier: SiLU (Swish), Mish and softplus."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, positive
from numpy_impl.ops._blocks import by_blocks, chain_rule
from numpy_impl.ops.sigmoid import _sigmoid


def silu(x: NDArray) -> tuple[NDArray, Callable]:
    """y = x · σ(x).  (Hendrycks & Gimpel 2016, arXiv:1606.08415; Swish in Ramachandran et al. 2017, arXiv:1710.05941)

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = silu(np.array([-1.0, 0.0, 2.0]))
    >>> y.round(4)
    array([-0.2689,  0.    ,  1.7616])
    >>> backward(np.ones(3)).round(4)
    array([0.0723, 0.5   , 1.0908])
    """
    floats("silu", x=x)
    y, slope = by_blocks(_silu, x, outputs=2, scratch=1)

    def backward(dy):
        return chain_rule(dy, slope)

    return y, backward


def _silu(x: NDArray, y: NDArray, slope: NDArray, scratch: NDArray) -> None:
    """SiLU and its derivative for a piece of an array, with a row to work in."""
    sigma, rest = slope, scratch[0]
    _sigmoid(x, sigma)
    np.multiply(x, sigma, out=y)
    # y′ = σ + x · σ (1 − σ) = σ + y − y σ
    np.multiply(y, sigma, out=rest)
    slope += y
    slope -= rest


def mish(x: NDArray) -> tuple[NDArray, Callable]:
    """y = x · tanh(softplus(x)),  softplus(x) = log(1 + eˣ).  (Misra 2019, arXiv:1908.08681)

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Notes
    -----
    No logarithm is needed: with e = eˣ, tanh(log(1 + e)) = ((1 + e)² − 1) / ((1 + e)² + 1) = n / (n + 2),  n = e (e + 2).

    Examples
    --------
    >>> y, backward = mish(np.array([-1.0, 0.0, 2.0]))
    >>> y.round(4)
    array([-0.3034,  0.    ,  1.944 ])
    >>> backward(np.ones(3)).round(4)
    array([0.0592, 0.6   , 1.0693])
    """
    floats("mish", x=x)

    def fill(x, y, slope, scratch):
        e, n, gate = scratch
        np.minimum(x, 20, out=e)                # beyond 20 the gate is 1, and n would overflow
        np.exp(e, out=e)
        np.add(e, 2, out=n)
        n *= e
        np.add(n, 2, out=gate)
        np.divide(n, gate, out=gate)
        np.multiply(x, gate, out=y)
        # y′ = gate + x · tanh′(softplus) · softplus′,  with  tanh′ = 1 − gate²  and  softplus′ = σ = e / (1 + e).
        np.add(1, e, out=n)
        np.divide(e, n, out=slope)
        slope *= x
        np.multiply(gate, gate, out=n)
        np.subtract(1, n, out=n)
        slope *= n
        slope += gate

    y, slope = by_blocks(fill, x, outputs=2, scratch=3)

    def backward(dy):
        return chain_rule(dy, slope)

    return y, backward


def softplus(x: NDArray, *, beta: float = 1.0) -> tuple[NDArray, Callable]:
    """y = log(1 + exp(β x)) / β.

    Parameters
    ----------
    x : any shape, float32 or float64
    beta : float > 0   β; the larger, the closer to max(x, 0)

    Returns
    -------
    y : like x
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64, or beta is not positive and finite

    Notes
    -----
    exp(β x) overflows; log(1 + eᶻ) = max(z, 0) + log(1 + e^−|z|) never does.

    Examples
    --------
    >>> y, backward = softplus(np.array([-1.0, 0.0, 1000.0]))
    >>> y.round(4)
    array([3.133e-01, 6.931e-01, 1.000e+03])
    >>> backward(np.ones(3)).round(4)
    array([0.2689, 0.5   , 1.    ])
    """
    floats("softplus", x=x)
    positive("softplus", beta=beta)

    def forward(x, y, scratch):
        z, e = scratch
        np.multiply(x, beta, out=z)
        np.abs(z, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.log1p(e, out=y)
        np.maximum(z, 0, out=z)
        y += z
        y /= beta

    y = by_blocks(forward, x, scratch=2)

    def backward(dy):
        # y′ = σ(β x), and y knows it: exp(−β y) = 1 / (1 + exp(β x)) = 1 − σ(β x).
        def fill(dy, y, dx):
            np.multiply(y, -beta, out=dx)
            np.expm1(dx, out=dx)
            np.negative(dx, out=dx)
            dx *= dy

        return by_blocks(fill, dy, y)

    return y, backward
