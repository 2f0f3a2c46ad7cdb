"""The attention of heads in groups, with or without sinks: what stands behind grouped_query.py and sinks.py.

Where heads share keys, their queries are so many more queries of one head: fold the group into the axis of queries, (K, G, T, E) into
(K, G · T, E), and a product with the keys is a product of matrices again. Its transpose, in the backward, sums over the group by itself.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand.checks import booleans, broadcastable, in_range, positive
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _cap, _sum_to
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops.random_bits import random_bits


def attend(
    who: str, query: NDArray, key: NDArray, value: NDArray, sinks: NDArray | None, bias: NDArray | None, mask: NDArray | None, causal: bool,
    scale: float | None, soft_cap: float | None, dropout: float, noise: Noise | None,
) -> tuple[NDArray, Callable]:
    """query (..., H, T, E), key (..., K, S, E), value (..., K, S, W), sinks (H,), whose shapes are known to fit -> y (..., H, T, W);
    backward: dy -> dquery, dkey, dvalue, dsinks (None without sinks), dbias (None without bias)."""
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

    added = None if bias is None else grouped(np.broadcast_to(bias, (*lead, h, t, s)))
    hidden = None if mask is None else grouped(np.broadcast_to(~mask, (*lead, h, t, s)))
    kept = None if noise is None or dropout == 0 else random_bits(noise, shape) >= round(dropout * 2**32)
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)
    nothing = np.full(h, -np.inf, query.dtype)                          # the score of a sink that attracts nothing
    sink = grouped(np.broadcast_to((nothing if sinks is None else sinks)[:, None, None], (*lead, h, 1, 1)))      # (..., K, G, 1, 1)

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
        p, p_sink = _softmax_in_place(scores, sink[part])
        dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
        grouped(y)[part][..., rows, :] = _unfold(_fold(dropped) @ value[part][..., seen, :], group)
        trail.append((part, rows, seen, p, p_sink, slope))

    def backward(dy):
        dy = grouped(dy)
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        dsink = np.zeros((*lead, k, group), query.dtype)
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
        dsinks = None if sinks is None else dsink.reshape(-1, h).sum(0)
        dbias = None if bias is None else _sum_to(dadded.reshape(*lead, h, t, s), bias.shape)
        return dquery, dkey, dvalue, dsinks, dbias

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


def _softmax_in_place(scores: NDArray, sink: NDArray) -> tuple[NDArray, NDArray]:
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
