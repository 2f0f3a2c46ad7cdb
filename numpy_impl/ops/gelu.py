"""The Gaussian error linear unit and its two approximations (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats
from numpy_impl.ops._blocks import by_blocks
from numpy_impl.ops.erf import _erf
from numpy_impl.ops.sigmoid import _sigmoid


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

    def fill(x, y, slope):
        cdf = slope
        _erf(x * math.sqrt(1 / 2), cdf)
        cdf += 1
        cdf *= 1 / 2                            # Φ
        np.multiply(x, cdf, out=y)
        # y′ = Φ + x · Φ′, and Φ′ is the normal density exp(−x² / 2) / √(2π).
        density = x * x
        density *= -1 / 2
        np.exp(density, out=density)
        density *= 1 / math.sqrt(2 * math.pi)
        density *= x
        slope += density

    y, slope = by_blocks(fill, x, outputs=2)

    def backward(dy):
        return by_blocks(np.multiply, dy, slope)

    return y, backward


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
    a, b = math.sqrt(2 / math.pi), 0.044715

    def fill(x, y, slope):
        square = x * x
        tanh = a * b * square
        tanh += a
        tanh *= x
        np.tanh(tanh, out=tanh)                 # of the inner z = a x + a b x³
        half = x / 2
        np.multiply(half, tanh, out=y)
        y += half
        # y′ = ½ (1 + tanh z) + ½ x · tanh′(z) · z′,  with  tanh′ = 1 − tanh²  and  z′ = a + 3 a b x².
        square *= 3 * a * b
        square += a
        square *= half
        np.multiply(tanh, tanh, out=slope)
        np.subtract(1, slope, out=slope)
        slope *= square
        tanh /= 2
        tanh += 1 / 2
        slope += tanh

    y, slope = by_blocks(fill, x, outputs=2)

    def backward(dy):
        return by_blocks(np.multiply, dy, slope)

    return y, backward


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
        return by_blocks(np.multiply, dy, slope)

    return y, backward
