"""Noise that makes a router explore: on its logits (Shazeer et al. 2017, arXiv:1701.06538), or on what it reads (jitter, in Switch)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, in_range, same_shape
from byhand.noise import Noise
from numpy_impl.ops.random_bits import random_bits
from numpy_impl.ops.silu import softplus


def noisy_logits(logits: NDArray, spread: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
    """y = logits + ε · softplus(spread),  with ε standard normal:  how much noise an expert gets is learnt as well.

    Parameters
    ----------
    logits : (...)   float32 or float64, of any shape
    spread : (...)   like logits, in its dtype; the standard deviation of the noise is softplus(spread) = log(1 + exp(spread))
    noise : Noise    the stream of the bits behind ε, two words an entry; None adds no noise (inference)

    Returns
    -------
    y : (...)   logits itself without noise
    backward : dy (...) -> dlogits (...), dspread (...)

    Raises
    ------
    ValueError   if logits and spread differ in shape or dtype, or are not float32 or float64

    References
    ----------
    Shazeer et al. 2017, arXiv:1701.06538, equation 4; ε by Box & Muller 1958

    Examples
    --------
    >>> y, backward = noisy_logits(np.zeros(4), np.zeros(4), noise=Noise(seed=0))
    >>> y.round(4)
    array([ 0.9253, -0.2264, -0.1874,  0.6756])
    >>> backward(np.ones(4))[1].round(4)
    array([ 0.6675, -0.1633, -0.1352,  0.4873])
    """
    floats("noisy_logits", logits=logits, spread=spread)
    same_shape("noisy_logits", logits.shape, spread=spread)
    if noise is None:
        return logits, lambda dy: (dy, np.zeros_like(spread))

    eps = _normal(noise, logits.shape, logits.dtype)
    deviation, softplus_backward = softplus(spread)
    return np.asarray(logits + eps * deviation), lambda dy: (dy, softplus_backward(np.asarray(dy * eps)))


def jitter(x: NDArray, *, eps: float, noise: Noise | None = None) -> tuple[NDArray, Callable]:
    """y = x · u,  with u uniform in [1 − eps, 1 + eps]:  what a router reads, a little blurred.

    Parameters
    ----------
    x : (...)       float32 or float64
    eps : float     in [0, 1]
    noise : Noise   the stream of the bits, one word an entry; None changes nothing (inference)

    Returns
    -------
    y : (...)   x itself where nothing is to change
    backward : dy (...) -> dx (...)

    Raises
    ------
    ValueError   if eps is outside [0, 1] or x is not float32 or float64

    References
    ----------
    Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, section 2.4, with eps = 0.01

    Examples
    --------
    >>> y, backward = jitter(np.full(4, 10.0), eps=0.1, noise=Noise(seed=0))
    >>> y.round(2)
    array([ 9.8 , 10.76, 10.47, 10.21])
    >>> backward(np.ones(4)).round(3)
    array([0.98 , 1.076, 1.047, 1.021])
    """
    floats("jitter", x=x)
    in_range("jitter", 0, 1, eps=eps)
    if noise is None or eps == 0:
        return x, lambda dy: dy
    u = np.asarray(1 + eps * (random_bits(noise, x.shape) / 2**31 - 1), x.dtype)
    return np.asarray(x * u), lambda dy: np.asarray(dy * u)


def _normal(noise: Noise, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """Standard normals: the radius of a normal point in the plane, √(−2 log u), times the cosine of its angle, 2π v."""
    u, v = (random_bits(noise, (2, *shape)) + 0.5) / 2**32       # uniform, in float64; never 0, whose logarithm is −∞
    return np.asarray(np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v), dtype)
