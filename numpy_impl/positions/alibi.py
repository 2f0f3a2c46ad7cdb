"""Attention with linear biases (Press, Smith & Lewis 2022, arXiv:2108.12409): positions enter as a penalty in the scores, nowhere else."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import size


def alibi_slopes(heads: int, *, dtype: DTypeLike = np.float32) -> NDArray:
    """m_h = 2^(−8h / H)  for the heads h = 1 … H, where H is a power of two.

    The slopes form a geometric sequence that ends in 1/256, whatever the number of heads: some heads look far, some near. For another H
    the authors' code takes the slopes of N heads, N the largest power of two below H, and then the 1st, 3rd, 5th … of those of 2N heads,
    which lie between them.

    Parameters
    ----------
    heads : int   H
    dtype         of the slopes

    Returns
    -------
    slopes : (H,)   in units of a score per token; constants: they have no gradient

    Raises
    ------
    ValueError   if heads is below 1 or no integer

    Examples
    --------
    >>> alibi_slopes(4, dtype=np.float64)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625])
    >>> alibi_slopes(6, dtype=np.float64)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625, 0.5       ,
           0.125     ])
    """
    size("alibi_slopes", heads=heads)
    n = 1 << int(heads).bit_length() - 1                                      # the largest power of two up to H
    h = np.concatenate([np.arange(1, n + 1), np.arange(heads - n) + 0.5])     # among 2N heads, ½, 1½, 2½ … are the 1st, 3rd, 5th …
    return (2.0 ** (-8 / n * h)).astype(dtype)


def alibi_bias(
    heads: int, *, queries: int, keys: int, symmetric: bool = False, dtype: DTypeLike = np.float32
) -> NDArray:
    """bias[h, t, s] = −m_h · (t + S − T − s)  for the keys up to the query's own, and −∞ for those after it: added to the scores.

    Or, for attention that looks both ways, −m_h · |t + S − T − s|  for all keys.

    Parameters
    ----------
    heads : int        H
    queries : int      T
    keys : int         S; query t stands beside key t + S − T, so that the last one stands beside the last key
    symmetric : bool   a key after the query is as far as one before it, instead of hidden
    dtype              of the bias

    Returns
    -------
    bias : (H, T, S)   a constant: it has no gradient

    Raises
    ------
    ValueError   if heads is below 1, queries or keys is negative, or one of them is no integer

    Examples
    --------
    >>> alibi_bias(8, queries=2, keys=3)[0]
    array([[-0.5,  0. , -inf],
           [-1. , -0.5,  0. ]], dtype=float32)
    >>> alibi_bias(8, queries=2, keys=3, symmetric=True)[0]
    array([[-0.5,  0. , -0.5],
           [-1. , -0.5,  0. ]], dtype=float32)
    """
    size("alibi_bias", heads=heads)
    size("alibi_bias", at_least=0, queries=queries, keys=keys)
    ahead = np.arange(keys) - np.arange(keys - queries, keys)[:, None]   # (T, S): how many tokens the key stands after the query
    added = -np.abs(ahead) if symmetric else np.where(ahead > 0, -np.inf, ahead)
    slopes = alibi_slopes(heads, dtype=np.float64)
    return np.multiply(slopes[:, None, None], added, out=np.empty((heads, queries, keys), dtype), casting="same_kind")   # (H, T, S)
