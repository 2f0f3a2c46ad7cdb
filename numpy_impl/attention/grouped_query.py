"""Attention whose query heads share keys and values: in groups (Ainslie et al. 2023, arXiv:2305.13245), or all of them (Shazeer 2019,
arXiv:1911.02150)."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _cap, _softmax_in_place, _sum_to
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops.random_bits import random_bits


def grouped_query_attention(
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
    """y_h = dropout(P_h) · value_k,  with  P_h = softmax(cap(scale · query_h · key_kᵀ) + bias_h)  and  k = ⌊h · K / H⌋.

    Each of the K heads of keys and values serves a group of H / K query heads that follow one another: K = H is multi-head attention,
    K = 1 multi-query attention. A cache of keys and values shrinks by H / K.

    Parameters
    ----------
    query : (..., H, T, E)       float32 or float64
    key : (..., K, S, E)         the same leading axes as query; K divides H
    value : (..., K, S, W)       the same leading axes and heads as key, and a width of its own
    bias : (..., H, T, S)        added to the capped scores; may broadcast; −inf hides a key
    mask : (..., H, T, S) bool   True = may see; may broadcast
    causal : bool                query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float                1/√E by default
    soft_cap : float             cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    dropout : float              the share of P that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise                the stream whose bits, one word per entry of (..., H, T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., H, T, W)
    backward : dy (..., H, T, W) -> dquery, dkey, dvalue, dbias (None without bias); dkey and dvalue are sums over the group

    A query that sees nothing (everything masked, or biased by −inf) gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if K does not divide H, shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or soft_cap not
                 positive

    Examples
    --------
    >>> query, key, value = np.zeros((4, 1, 2)), np.ones((2, 3, 2)), np.ones((2, 3, 1)) * np.array([[[5.0]], [[7.0]]])
    >>> y, backward = grouped_query_attention(query, key, value)
    >>> y.ravel()
    array([5., 5., 7., 7.])
    >>> backward(np.ones_like(y))[2].ravel()
    array([0.66666667, 0.66666667, 0.66666667, 0.66666667, 0.66666667,
           0.66666667])
    """
    who = "grouped_query_attention"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 3, query=query, key=key, value=value)
    *lead, h, _, e = query.shape
    k, s = key.shape[-3:-1]
    demand(who, h > 0 and k > 0 and h % k == 0, "query heads that are a multiple of the heads of key", query=query, key=key)
    same_shape(who, (*lead, k, s, e), key=key)
    same_shape(who, (*lead, k, s, value.shape[-1]), value=value)
    return _attend(who, query, key, value, bias, mask, causal, scale, soft_cap, dropout, noise)


def multi_query_attention(
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
    """y_h = dropout(P_h) · value,  with  P_h = softmax(cap(scale · query_h · keyᵀ) + bias_h):  all heads read the same keys and values.

    Parameters
    ----------
    query : (..., H, T, E)       float32 or float64
    key : (..., S, E)            the same leading axes as query, without heads
    value : (..., S, W)          the same leading axes as key, and a width of its own

    bias, mask, causal, scale, soft_cap, dropout and noise are those of `grouped_query_attention`.

    Returns
    -------
    y : (..., H, T, W)
    backward : dy (..., H, T, W) -> dquery, dkey, dvalue, dbias (None without bias); dkey and dvalue are sums over all heads

    Raises
    ------
    ValueError   if there is no head, shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or soft_cap not
                 positive

    Examples
    --------
    >>> query, key, value = np.zeros((4, 1, 2)), np.ones((3, 2)), np.array([[1.0], [2.0], [6.0]])
    >>> y, backward = multi_query_attention(query, key, value)
    >>> y.ravel()
    array([3., 3., 3., 3.])
    """
    who = "multi_query_attention"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 3, query=query)
    at_least_rank(who, 2, key=key, value=value)
    *lead, h, _, e = query.shape
    s = key.shape[-2]
    demand(who, h > 0, "query with at least one head", query=query)
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, value.shape[-1]), value=value)
    one_key, one_value = key[..., None, :, :], value[..., None, :, :]    # (..., 1, S, ·)
    y, attend_backward = _attend(who, query, one_key, one_value, bias, mask, causal, scale, soft_cap, dropout, noise)

    def backward(dy):
        dquery, dkey, dvalue, dbias = attend_backward(dy)
        return dquery, dkey[..., 0, :, :], dvalue[..., 0, :, :], dbias

    return y, backward


def _attend(
    who: str, query: NDArray, key: NDArray, value: NDArray, bias: NDArray | None, mask: NDArray | None, causal: bool, scale: float | None,
    soft_cap: float | None, dropout: float, noise: Noise | None,
) -> tuple[NDArray, Callable]:
    """query (..., H, T, E), key (..., K, S, E), value (..., K, S, W), whose shapes are known to fit."""
    *lead, h, t, e = query.shape
    k, s, w = key.shape[-3], key.shape[-2], value.shape[-1]
    booleans(who, mask=mask)
    broadcastable(who, (*lead, h, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)

    group = h // k
    shape = (*lead, k, group, t, s)

    def grouped(x: NDArray) -> NDArray:                                 # (..., H, ·, ·) -> (..., K, G, ·, ·): a view
        return x.reshape(*lead, k, group, *x.shape[-2:])

    # Where heads share keys, their queries are so many more queries of one head: fold the group into the axis of queries, and a product
    # with the keys is a product of matrices again. Its transpose, in the backward, then sums over the group by itself.
    added = None if bias is None else grouped(np.broadcast_to(bias, (*lead, h, t, s)))
    hidden = None if mask is None else grouped(np.broadcast_to(~mask, (*lead, h, t, s)))
    kept = None if noise is None or dropout == 0 else random_bits(noise, shape) >= round(dropout * 2**32)
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)

    scaled = grouped(query * scale)                                     # (..., K, G, T, E)
    y = np.empty_like(query, shape=(*lead, h, t, w))
    trail = []                                                          # what the pullback needs of each strip, P above all
    for part, rows, seen in _pieces(shape, causal):
        scores = _fold(scaled[part][..., rows, :]) @ key[part][..., seen, :].swapaxes(-1, -2)    # (..., K, G · strip, seen)
        scores, slope = _unfold(scores, group), None                    # (..., K, G, strip, seen)
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
        grouped(y)[part][..., rows, :] = _unfold(_fold(dropped) @ value[part][..., seen, :], group)
        trail.append((part, rows, seen, p, slope))

    def backward(dy):
        dy = grouped(dy)
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        dadded = None if bias is None else np.zeros(shape, dtype=bias.dtype)
        for part, rows, seen, p, slope in trail:
            # y = dropout(P) V
            dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
            dy_rows = _fold(dy[part][..., rows, :])                     # (..., K, G · strip, W)
            dvalue[part][..., seen, :] += _fold(dropped).swapaxes(-1, -2) @ dy_rows
            dp = _unfold(dy_rows @ value[part][..., seen, :].swapaxes(-1, -2), group)
            if kept is not None:
                dp *= kept[part][..., rows, seen]
                dp *= grown
            # P = softmax(scores): ds = P · (dP − Σ P · dP), as in scaled_dot_product. Where P is 0, nothing passes.
            dp -= np.vecdot(p, dp)[..., None]
            dscores = np.multiply(dp, p, out=dp)
            if dadded is not None:
                dadded[part][..., rows, seen] = dscores
            if slope is not None:
                dscores *= slope
            # scores = (scale · Q) Kᵀ
            folded = _fold(dscores)                                     # (..., K, G · strip, seen)
            grouped(dquery)[part][..., rows, :] = _unfold(folded @ key[part][..., seen, :], group)
            dkey[part][..., seen, :] += folded.swapaxes(-1, -2) @ _fold(scaled[part][..., rows, :])
        dquery *= scale
        return dquery, dkey, dvalue, None if bias is None else _sum_to(dadded.reshape(*lead, h, t, s), bias.shape)

    return y, backward


def _pieces(shape: tuple[int, ...], causal: bool) -> Iterator[tuple[tuple[slice, ...], slice, slice]]:
    """Pieces of the scores (..., K, G, T, S) that stay in the cache: (part of the axes before G, query rows, the keys they may see)."""
    *lead, _, t, s = shape
    strip = 64 if causal else 256                                       # as in scaled_dot_product
    for part in itertools.product(*(blocks(n, math.prod(shape[-3:]) // 4) for n in lead)):
        for start in range(0, t, strip):
            stop = start + strip                                        # beyond t in the last strip: slices end where the array does
            yield part, slice(start, stop), slice(0, max(stop + s - t, 0) if causal else s)


def _fold(x: NDArray) -> NDArray:
    """(..., G, T, N) -> (..., G · T, N): the queries of a group's heads one below the other."""
    *lead, group, t, n = x.shape
    return x.reshape(*lead, group * t, n)


def _unfold(x: NDArray, group: int) -> NDArray:
    """(..., G · T, N) -> (..., G, T, N)."""
    *lead, rows, n = x.shape
    return x.reshape(*lead, group, rows // group, n)
