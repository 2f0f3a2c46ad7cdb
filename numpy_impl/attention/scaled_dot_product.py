"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, positive, same_shape
from byhand.noise import Noise
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops.random_bits import random_bits


def scaled_dot_product(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    bias: NDArray | None = None,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) + bias)  over the keys that a query may see.

    Parameters
    ----------
    query : (..., T, E)       float32 or float64
    key : (..., S, E)         the same leading axes as query
    value : (..., S, W)       the same leading axes, and a width of its own
    bias : (..., T, S)        added to the capped scores; may broadcast; −inf hides a key
    mask : (..., T, S) bool   True = may see; may broadcast
    causal : bool             query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float             1/√E by default
    soft_cap : float          cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    dropout : float           the share of P that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise             the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue, dbias (None without bias)

    A query that sees nothing (everything masked, or biased by −inf) gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or soft_cap not positive

    Examples
    --------
    >>> x = np.eye(2)
    >>> y, backward = scaled_dot_product(x, x, x, causal=True)
    >>> y.round(4)
    array([[1.    , 0.    ],
           [0.3302, 0.6698]])
    """
    who = "scaled_dot_product"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)

    shape = (*lead, t, s)
    added = None if bias is None else np.broadcast_to(bias, shape)
    hidden = None if mask is None else np.broadcast_to(~mask, shape)
    kept = None if noise is None or dropout == 0 else random_bits(noise, shape) >= round(dropout * 2**32)
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)

    scaled = query * scale                                           # (..., T, E): cheaper than scaling (..., T, S)
    y = np.empty_like(query, shape=(*lead, t, w))                    # laid out as query is: heads that are views merge without a copy
    trail = []                                                       # what the pullback needs of each strip, P above all
    for part, rows, seen in _pieces(shape, causal):
        scores = scaled[part][..., rows, :] @ key[part][..., seen, :].swapaxes(-1, -2)    # (..., strip, seen)
        slope = None
        if soft_cap is not None:
            scores, slope = _cap(scores, soft_cap)
        if added is not None:
            scores += added[part][..., rows, seen]
        if hidden is not None:
            np.copyto(scores, -np.inf, where=hidden[part][..., rows, seen])
        if causal:
            # All rows of the strip see the keys up to the one beside its first row; what follows is a triangle.
            common = max(rows.start + s - t, 0)
            future = scores[..., common:]
            np.copyto(future, -np.inf, where=~np.tri(*future.shape[-2:], rows.start + s - t - common, dtype=bool))
        p = _softmax_in_place(scores)
        dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
        np.matmul(dropped, value[part][..., seen, :], out=y[part][..., rows, :])
        trail.append((part, rows, seen, p, slope))

    def backward(dy):
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        dadded = None if bias is None else np.zeros(shape, dtype=bias.dtype)
        for part, rows, seen, p, slope in trail:
            # y = dropout(P) V
            dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
            dvalue[part][..., seen, :] += dropped.swapaxes(-1, -2) @ dy[part][..., rows, :]
            dp = dy[part][..., rows, :] @ value[part][..., seen, :].swapaxes(-1, -2)
            if kept is not None:
                dp *= kept[part][..., rows, seen]
                dp *= grown
            # P = softmax(scores): raising one score lowers the other probabilities of its row, so that ds = P · (dP − Σ P · dP).
            # Where P is 0, for what was hidden and for a row that sees nothing, nothing passes.
            dp -= np.vecdot(p, dp)[..., None]
            dscores = np.multiply(dp, p, out=dp)
            if dadded is not None:
                dadded[part][..., rows, seen] = dscores
            if slope is not None:
                dscores *= slope
            # scores = (scale · Q) Kᵀ
            np.matmul(dscores, key[part][..., seen, :], out=dquery[part][..., rows, :])
            dkey[part][..., seen, :] += dscores.swapaxes(-1, -2) @ scaled[part][..., rows, :]
        dquery *= scale
        return dquery, dkey, dvalue, None if bias is None else _sum_to(dadded, bias.shape)

    return y, backward


def _pieces(shape: tuple[int, ...], causal: bool) -> Iterator[tuple[Any, slice, slice]]:
    """Pieces of the scores that stay in the cache: (part of the first axis, query rows, the keys that at least one of these rows sees)."""
    *lead, t, s = shape
    strip = 64 if causal else 256    # low strips skip more of what nobody sees; where there is nothing to skip, tall ones multiply faster
    for part in blocks(lead[0], math.prod(shape[1:]) // 4) if lead else [...]:
        for start in range(0, t, strip):
            stop = start + strip                                     # beyond t in the last strip: slices end where the array does
            yield part, slice(start, stop), slice(0, max(stop + s - t, 0) if causal else s)


def _cap(scores: NDArray, soft_cap: float) -> tuple[NDArray, NDArray]:
    """c · tanh(s / c) and its slope, 1 − tanh²(s / c)."""
    scores = scores / soft_cap
    decay = np.exp(-2 * np.abs(scores))
    return soft_cap * np.tanh(scores), 4 * decay / (1 + decay) ** 2   # 1 − tanh² would cancel where tanh is nearly 1


def _softmax_in_place(scores: NDArray) -> NDArray:
    """softmax(scores) over the last axis, written over the scores; a row of −inf becomes a row of zeros."""
    # The lowest finite number stands in for the peak of such a row: −inf − (−inf) would be NaN.
    scores -= scores.max(-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    np.exp(scores, out=scores)
    total = scores @ np.ones((scores.shape[-1], 1), scores.dtype)    # (..., strip, 1): the sum of each row, faster than .sum(-1)
    scores /= np.maximum(total, 1)                                   # every other row holds an exp(0) = 1 and sums to more
    return scores


def _sum_to(dwide: NDArray, shape: tuple[int, ...]) -> NDArray:
    """The gradient of an array of `shape` that was broadcast to the shape of dwide: the sum over the axes it was repeated along."""
    dwide = dwide.sum(tuple(range(dwide.ndim - len(shape))))
    return dwide.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
