"""The Gaussian error linear unit and its two approximations (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats
from numpy_impl.ops._blocks import by_blocks, chain_rule
from numpy_impl.ops.erf import _erf64
from numpy_impl.ops.sigmoid import _sigmoid

# float32: 2 Φ(x) − 1 = erf(x / √2) = tanh(x · N / D), each of N and D a weighted sum of 1, x², g and g², where g = exp(−x² / 4). Such a
# quotient exists because artanh(erf(x / √2)) / x is an even, smooth, slowly growing function; powers of x² alone would do, but g² is the
# exp(−x² / 2) that the derivative needs anyway. Our own minimax fit for |x| ≤ 6 (Lawson's weighting): Φ is off by 6e-9 at most, and beyond
# 6 the tanh is 1 in float32. All weights are positive: nothing cancels and D has no zero.
_NUMERATOR = [0.823792693, 0.0437033562, 0.144046708, 0.0105836615]   # of 1, x², g, g²
_DENOMINATOR = [1.0, 0.01090677, 0.197572495, 0.0286988431]
_LEAST = -512  # both the bound of −x² / 4, where exp is 0 in float32, and, as a row of equal numbers, the constant term
_WEIGHTS = np.array([_NUMERATOR, _DENOMINATOR], np.float32) / np.array([_LEAST, -1 / 4, 1, 1], np.float32)  # of _LEAST, −x² / 4, g, g²


def gelu(x: NDArray) -> tuple[NDArray, Callable]:
    """y = x · Φ(x),  with the normal distribution function  Φ(x) = ½ (1 + erf(x / √2)).

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
    >>> y, backward = gelu(np.array([-1.0, 0.0, 2.0]))
    >>> y.round(4)
    array([-0.1587,  0.    ,  1.9545])
    >>> backward(np.ones(3)).round(4)
    array([-0.0833,  0.5   ,  1.0852])
    """
    floats("gelu", x=x)
    y, slope = by_blocks(_gelu, x, outputs=2, scratch=6)

    def backward(dy):
        return chain_rule(dy, slope)

    return y, backward


def _gelu(x: NDArray, y: NDArray, slope: NDArray, scratch: NDArray) -> None:
    """GELU and its derivative for a piece of an array, with six rows to work in."""
    terms, sums = scratch[:4], scratch[4:]
    least, exponent, g, density = terms
    cdf, _ = sums
    least[:] = _LEAST
    np.multiply(x, -1 / 4, out=exponent)
    exponent *= x
    np.maximum(exponent, least, out=exponent)   # keeps −∞ out of what follows; NaN passes
    np.exp(exponent, out=g)
    np.multiply(g, g, out=density)              # exp(−x² / 2)
    # First y = erf(x / √2).
    if x.dtype == np.float32:
        numerator, denominator = np.matmul(_WEIGHTS, terms, out=sums)
        z = numerator
        z /= denominator
        z *= x
        np.tanh(z, out=y)
    else:
        _erf64(x * math.sqrt(1 / 2), y)
    y *= 1 / 2
    np.add(y, 1 / 2, out=cdf)                   # Φ
    np.multiply(x, cdf, out=y)
    # y′ = Φ + x · Φ′, and Φ′ is the normal density exp(−x² / 2) / √(2π).
    np.multiply(density, 1 / math.sqrt(2 * math.pi), out=slope)
    slope *= x
    slope += cdf


def gelu_tanh(x: NDArray) -> tuple[NDArray, Callable]:
    """y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the form of GPT-2.

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x   within 5e-4 of `gelu`
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = gelu_tanh(np.array([-1.0, 0.0, 2.0]))
    >>> y.round(4)
    array([-0.1588,  0.    ,  1.9546])
    >>> backward(np.ones(3)).round(4)
    array([-0.083 ,  0.5   ,  1.0861])
    """
    floats("gelu_tanh", x=x)
    y, slope = by_blocks(_gelu_tanh, x, outputs=2, scratch=2)

    def backward(dy):
        return chain_rule(dy, slope)

    return y, backward


def _gelu_tanh(x: NDArray, y: NDArray, slope: NDArray, scratch: NDArray) -> None:
    """The tanh form and its derivative for a piece of an array, with two rows to work in."""
    a, b = math.sqrt(2 / math.pi), 0.044715
    square, rest, *_ = scratch
    np.multiply(x, x, out=square)
    # σ = ½ (1 + tanh z), of the inner z = a x + a b x³ = (a + a b x²) x
    np.multiply(square, a * b, out=rest)
    rest += a
    rest *= x
    sigma = slope
    np.tanh(rest, out=sigma)
    sigma *= 1 / 2
    sigma += 1 / 2
    np.multiply(x, sigma, out=y)
    # y′ = σ + x σ′.  σ is the logistic function of 2 z, so that σ′ = σ (1 − σ) · 2 z′, with z′ = a + 3 a b x²; and x σ is y.
    square *= 6 * a * b
    square += 2 * a                             # 2 z′
    np.subtract(1, sigma, out=rest)
    rest *= y
    rest *= square
    slope += rest


def gelu_sigmoid(x: NDArray) -> tuple[NDArray, Callable]:
    """y = x · σ(1.702 x), the form of CLIP ("quick GELU").

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x   within 0.021 of `gelu`
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = gelu_sigmoid(np.array([-1.0, 0.0, 2.0]))
    >>> y.round(4)
    array([-0.1542,  0.    ,  1.9357])
    >>> backward(np.ones(3)).round(4)
    array([-0.0678,  0.5   ,  1.0738])
    """
    floats("gelu_sigmoid", x=x)

    def fill(x, y, slope):
        sigma = x * 1.702
        _sigmoid(sigma, sigma)
        np.multiply(x, sigma, out=y)
        # y′ = σ + x · σ′,  with  σ′ = 1.702 σ (1 − σ).  In terms of y: σ + 1.702 y (1 − σ).
        np.subtract(1, sigma, out=slope)
        slope *= y
        slope *= 1.702
        slope += sigma

    y, slope = by_blocks(fill, x, outputs=2)

    def backward(dy):
        return chain_rule(dy, slope)

    return y, backward
