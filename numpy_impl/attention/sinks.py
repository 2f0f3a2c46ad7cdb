"""Attention sinks: one learned score per head that takes part in the softmax and brings no value (gpt-oss, OpenAI 2025,
arXiv:2508.10925; Xiao et al. 2023, arXiv:2309.17453, for why attention wants one)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from numpy_impl.attention.grouped_query import _fold, _pieces, _unfold
from numpy_impl.attention.scaled_dot_product import _cap, _sum_to
from numpy_impl.ops.random_bits import random_bits


def sink_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    sinks: NDArray,
    bias: NDArray | None = None,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(P) · value,  with  P_ts = exp(z_ts) / (exp(sink_h) + Σ_s exp(z_ts))  and  z = cap(scale · query · keyᵀ) + bias.

    A head whose sink is high may look at nothing: its rows of P sum to less than 1, and what is missing goes to the sink, as if there were
    one more key of score sink_h and value 0. At −inf it is `grouped_query_attention`; heads share keys and values as they do there.

    Parameters
    ----------
    query : (..., H, T, E)       float32 or float64
    key : (..., K, S, E)         the same leading axes as query; K divides H
    value : (..., K, S, W)       the same leading axes and heads as key, and a width of its own
    sinks : (H,)                 the score of each head's sink: neither scaled nor capped, seen by every query
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
    backward : dy (..., H, T, W) -> dquery, dkey, dvalue, dsinks (H,), dbias (None without bias)

    A query that sees nothing but the sink gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if K does not divide H, shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or soft_cap not
                 positive

    Examples
    --------
    >>> query, key, value = np.zeros((1, 1, 2)), np.zeros((1, 3, 2)), np.ones((1, 3, 1))
    >>> y, backward = sink_attention(query, key, value, np.array([0.0]))    # three keys and a sink, all of one score
    >>> y.ravel()
    array([0.75])
    """
    who = "sink_attention"
    floats(who, query=query, key=key, value=value, sinks=sinks, bias=bias)
    at_least_rank(who, 3, query=query, key=key, value=value)
    *lead, h, t, e = query.shape
    k, s, w = key.shape[-3], key.shape[-2], value.shape[-1]
    demand(who, h > 0 and k > 0 and h % k == 0, "query heads that are a multiple of the heads of key", query=query, key=key)
    same_shape(who, (*lead, k, s, e), key=key)
    same_shape(who, (*lead, k, s, w), value=value)
    same_shape(who, (h,), sinks=sinks)
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

    added = None if bias is None else grouped(np.broadcast_to(bias, (*lead, h, t, s)))
    hidden = None if mask is None else grouped(np.broadcast_to(~mask, (*lead, h, t, s)))
    kept = None if noise is None or dropout == 0 else random_bits(noise, shape) >= round(dropout * 2**32)
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)
    sink = grouped(np.broadcast_to(sinks[:, None, None], (*lead, h, 1, 1)))                      # (..., K, G, 1, 1)

    scaled = grouped(query * scale)                                     # (..., K, G, T, E)
    y = np.empty_like(query, shape=(*lead, h, t, w))
    trail = []                                                          # what the pullback needs of each strip, P above all
    for part, rows, seen in _pieces(shape, causal):
        # The queries of a group, one head's below the other's, are so many queries of one head: grouped_query.py says more.
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
        p, p_sink = _softmax_with_sink_in_place(scores, sink[part])
        dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
        grouped(y)[part][..., rows, :] = _unfold(_fold(dropped) @ value[part][..., seen, :], group)
        trail.append((part, rows, seen, p, p_sink, slope))

    def backward(dy):
        dy = grouped(dy)
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        dsink = np.zeros((*lead, k, group), dtype=sinks.dtype)
        dadded = None if bias is None else np.zeros(shape, dtype=bias.dtype)
        for part, rows, seen, p, p_sink, slope in trail:
            # y = dropout(P) V
            dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
            dy_rows = _fold(dy[part][..., rows, :])                     # (..., K, G · strip, W)
            dvalue[part][..., seen, :] += _fold(dropped).swapaxes(-1, -2) @ dy_rows
            dp = _unfold(dy_rows @ value[part][..., seen, :].swapaxes(-1, -2), group)
            if kept is not None:
                dp *= kept[part][..., rows, seen]
                dp *= grown
            # (P, P_sink) = softmax(scores, sink): ds = P · (dP − Σ P · dP), as in scaled_dot_product, and of the sink the same. But what it
            # attracts is multiplied by no value, dP_sink = 0: it adds nothing to the sum, and dsink = P_sink · (0 − Σ P · dP).
            inner = np.vecdot(p, dp)[..., None]                         # (..., K, G, strip, 1)
            dsink[part] -= (p_sink * inner).sum((-1, -2))
            dp -= inner
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
        dbias = None if bias is None else _sum_to(dadded.reshape(*lead, h, t, s), bias.shape)
        return dquery, dkey, dvalue, dsink.reshape(-1, h).sum(0), dbias

    return y, backward


def _softmax_with_sink_in_place(scores: NDArray, sink: NDArray) -> tuple[NDArray, NDArray]:
    """softmax over scores (..., strip, seen) and one more, sink (..., 1, 1) -> (P, written over the scores; the sink's own share)."""
    # The lowest finite number stands in for the peak of a row in which all is −inf: −inf − (−inf) would be NaN.
    peak = np.maximum(scores.max(-1, keepdims=True, initial=np.finfo(scores.dtype).min), sink)
    scores -= peak
    np.exp(scores, out=scores)
    share = np.exp(sink - peak)
    total = scores @ np.ones((scores.shape[-1], 1), scores.dtype) + share
    np.maximum(total, 1, out=total)                                     # every other row holds an exp(0) = 1 and sums to more
    scores /= total
    share /= total
    return scores, share
