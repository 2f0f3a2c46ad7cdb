"""Dropout (Srivastava et al. 2014, JMLR 15) and stochastic depth (Huang et al. 2016, arXiv:1603.09382), by counter-based masks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, floats, in_range
from byhand.noise import Noise
from numpy_impl.ops.random_bits import random_bits


def dropout(x: NDArray, *, p: float = 0.5, noise: Noise | None = None) -> tuple[NDArray, Callable]:
    """y = x · kept / (1 − p),  with  kept = (bits ≥ round(p · 2³²)),  so that the mean of y over all masks is x.

    Parameters
    ----------
    x : (...)       float32 or float64
    p : float       the probability in [0, 1] with which an entry is dropped; 1 drops everything
    noise : Noise   the stream of the bits, one word an entry; None drops nothing (inference)

    Returns
    -------
    y : (...)       x itself where nothing can be dropped; a dropped NaN or infinity is NaN, as 0 · ∞ is
    backward : dy (...) -> dx (...)

    Raises
    ------
    ValueError   if p is outside [0, 1] or x is not float32 or float64

    Examples
    --------
    >>> y, backward = dropout(np.ones(8), p=0.5, noise=Noise(seed=5))
    >>> y
    array([2., 0., 2., 2., 0., 0., 2., 0.])
    >>> backward(np.full(8, 0.5))
    array([1., 0., 1., 1., 0., 0., 1., 0.])
    """
    floats("dropout", x=x)
    in_range("dropout", 0, 1, p=p)
    if noise is None or p == 0:
        return x, lambda dy: dy

    kept = random_bits(noise, x.shape) >= round(p * 2**32)     # (...) booleans: a byte an entry until the pullback is dropped
    grown = _grown(p)

    def thinned(z):
        out = np.multiply(z, kept, out=np.empty_like(z))
        out *= grown
        return out

    return thinned(x), thinned       # linear in x with a diagonal matrix, which is its own transpose


def drop_path(x: NDArray, *, p: float, noise: Noise | None = None) -> tuple[NDArray, Callable]:
    """y_b = x_b · kept_b / (1 − p): dropout of whole samples, which turns a residual branch off for a sample (stochastic depth).

    Parameters
    ----------
    x : (B, ...)    float32 or float64
    p : float       the probability in [0, 1] with which a sample is dropped
    noise : Noise   the stream of the bits, one word a sample; None drops nothing (inference)

    Returns
    -------
    y : (B, ...)
    backward : dy (B, ...) -> dx (B, ...)

    Raises
    ------
    ValueError   if p is outside [0, 1], x has no axis, or x is not float32 or float64

    Examples
    --------
    >>> y, backward = drop_path(np.ones((4, 2)), p=0.5, noise=Noise(seed=0))
    >>> y
    array([[0., 0.],
           [2., 2.],
           [2., 2.],
           [2., 2.]])
    """
    floats("drop_path", x=x)
    at_least_rank("drop_path", 1, x=x)
    in_range("drop_path", 0, 1, p=p)
    if noise is None or p == 0:
        return x, lambda dy: dy

    kept = random_bits(noise, x.shape[:1]) >= round(p * 2**32)                               # (B,)
    factor = (kept * _grown(p)).astype(x.dtype).reshape(-1, *(1 for _ in x.shape[1:]))       # (B, 1, ...)
    return x * factor, lambda dy: dy * factor


def _grown(p: float) -> float:
    """1 / (1 − p): what is kept makes up for what is dropped; where that is everything, nothing is left to grow."""
    return 0.0 if p == 1 else 1 / (1 - p)
