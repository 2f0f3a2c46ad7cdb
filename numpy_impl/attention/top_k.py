"""Top-k attention (Gupta, Dar, Goodman, Ciprut & Berant 2021, arXiv:2106.06899): each query keeps its k best keys and forgets the rest."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, positive, same_shape, size
from byhand.noise import Noise
from numpy_impl.attention.attention_weights import attention_weights
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.ops._blocks import blocks


def top_k_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    bias: NDArray | None = None,
    *,
    k: int,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) + bias)  over those keys alone that a query keeps.

    Of the keys that it may see, a query keeps the k with the largest attention weights (those of `attention_weights`); of equal weights the
    one with the lower index. A weight that underflows to 0 is not kept. With k ≥ S this is `scaled_dot_product`.

    Parameters
    ----------
    query : (..., T, E)       float32 or float64
    key : (..., S, E)         the same leading axes as query
    value : (..., S, W)       the same leading axes, and a width of its own
    bias : (..., T, S)        added to the capped scores; may broadcast; −inf hides a key
    k : int                   how many keys a query keeps, at least 1
    mask : (..., T, S) bool   True = may see; may broadcast
    causal : bool             query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float             1/√E by default
    soft_cap : float          cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    dropout : float           the share of P that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise             the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue, dbias (None without bias), all through the kept keys alone

    Which keys are kept is a choice: it jumps where two weights change places and is constant elsewhere, so no gradient passes through it.

    Raises
    ------
    ValueError   if k is below 1, shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or soft_cap not positive

    Examples
    --------
    >>> query, key, value = np.ones((1, 1)), np.array([[0.0], [3.0], [-1.0], [3.0]]), np.array([[1.0], [2.0], [4.0], [8.0]])
    >>> y, backward = top_k_attention(query, key, value, k=2)
    >>> y
    array([[5.]])
    >>> backward(np.ones((1, 1)))[2].ravel()
    array([0. , 0.5, 0. , 0.5])
    """
    who = "top_k_attention"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, k=k)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)

    if k < s:
        weights, _ = attention_weights(query, key, bias, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap)
        mask = _largest(weights, k)
    # With the choice made, it is plain attention under a mask, and so is its backward.
    return scaled_dot_product(
        query, key, value, bias, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise
    )


def _largest(weights: NDArray, k: int) -> NDArray:
    """Booleans (..., S), True for the k largest weights of each row that are not 0; of equal ones, those with the lower index."""
    s = weights.shape[-1]
    kept = np.empty(weights.shape, dtype=bool)
    rows, kept_rows = weights.reshape(-1, s), kept.reshape(-1, s)
    for part in blocks(len(rows), s):
        some = rows[part]
        least = np.partition(some, -k)[:, -k, None]                             # (block, 1): the k-th largest weight
        least = np.maximum(least, np.finfo(some.dtype).smallest_subnormal)      # what is hidden has weight 0, and stays hidden
        kept_rows[part] = ~(some < least)                                       # a row of NaN is kept, and shows
        crowded = np.flatnonzero(np.count_nonzero(kept_rows[part], 1) > k)      # the few rows in which the k-th weight occurs again
        some, least = some[crowded], least[crowded]
        above, tied = ~(some <= least), some == least
        room = k - np.count_nonzero(above, 1, keepdims=True)
        kept_rows[part][crowded] = above | (tied & (np.cumsum(tied, 1) <= room))
    return kept
