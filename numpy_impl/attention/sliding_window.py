"""Attention within a window around every query (Beltagy, Peters & Cohan 2020, arXiv:2004.05150; Mistral 7B, arXiv:2310.06825).

Only a band of the (T, S) scores is ever looked at, so only a band is computed. The queries are cut into strips of h neighbours. The window
of the strip's first query begins `left` keys before it, that of its last ends `right` keys after it, so that together they see one run of
left + h + right keys:

    scores of a strip        ▓▓▓▓▓░░░        ▓ seen       ░ computed with the strip, but hidden: a triangle at either end
    (h = 4 queries,          ░▓▓▓▓▓░░
     left = 3, right = 1)    ░░▓▓▓▓▓░
                             ░░░▓▓▓▓▓

That is T · (left + h + right) scores: linear in T for a window that stays as it is, in time and in memory.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, floats, in_range, positive, same_shape
from byhand.checks import window as demand_window
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _cap, _softmax_in_place
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops.random_bits import random_bits

_STRIP = 64  # h


def sliding_window_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    *,
    window: tuple[int | None, int | None],
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys s with  i − left ≤ s ≤ i + right.

    Query t stands at i = t + S − T among the keys: the last query beside the last key.

    Parameters
    ----------
    query : (..., T, E)   float32 or float64
    key : (..., S, E)     the same leading axes as query
    value : (..., S, W)   the same leading axes, and a width of its own
    window : (int, int)   (left, right): so many keys before its own and after it a query sees, and its own; None is no limit on that
                          side. Mistral's window of n tokens, the query's own among them, is (n − 1, 0)
    causal : bool         right = 0, whatever the window says
    scale : float         1/√E by default
    soft_cap : float      cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    dropout : float       the share of P that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise         the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing. Only the
                          band's are made

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing (its window ends before the first key) gives y = 0 and passes no gradient. It is scaled_dot_product with the
    window as its mask, drop for drop.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, window is no pair of integers ≥ 0 (or None), dropout is outside [0, 1], scale is not
                 finite or soft_cap not positive

    Examples
    --------
    >>> x = np.zeros((4, 1))                                     # all scores are equal: the mean over the window
    >>> y, backward = sliding_window_attention(x, x, np.arange(4.0)[:, None], window=(1, 0))
    >>> y.ravel()
    array([0. , 0.5, 1.5, 2.5])
    """
    who = "sliding_window_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    demand_window(who, window=window)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)

    left, right = window
    shape = (*lead, t, s)
    drops = noise is not None and dropout > 0
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)
    scaled = query * scale                                       # (..., T, E): cheaper than scaling the scores
    y = np.empty_like(query, shape=(*lead, t, w))
    trail = []                                                   # what the pullback needs of each strip, P above all
    for part, rows, seen, hidden in _strips(shape, left, 0 if causal else right):
        scores = scaled[part][..., rows, :] @ key[part][..., seen, :].swapaxes(-1, -2)       # (..., h, left + h + right)
        slope = None
        if soft_cap is not None:
            scores, slope = _cap(scores, soft_cap)
        np.copyto(scores, -np.inf, where=hidden)
        p = _softmax_in_place(scores)
        kept = _kept(noise, dropout, shape, part, rows, seen) if drops else None
        dropped = p * kept * grown if drops else p
        np.matmul(dropped, value[part][..., seen, :], out=y[part][..., rows, :])
        trail.append((part, rows, seen, p, kept, slope))

    def backward(dy):
        # Every query lies in one strip: its gradient is written once. A key is seen by several strips: their gradients add up.
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        for part, rows, seen, p, kept, slope in trail:
            # y = dropout(P) V
            dropped = p * kept * grown if drops else p
            dvalue[part][..., seen, :] += dropped.swapaxes(-1, -2) @ dy[part][..., rows, :]
            dscores = dy[part][..., rows, :] @ value[part][..., seen, :].swapaxes(-1, -2)    # dP, and soon ds
            if drops:
                dscores *= kept
                dscores *= grown
            # P = softmax(scores): ds = P · (dP − Σ P · dP); where P is 0, for what was hidden, nothing passes.
            dscores -= np.vecdot(p, dscores)[..., None]
            dscores *= p
            if slope is not None:
                dscores *= slope
            # scores = (scale · Q) Kᵀ
            np.matmul(dscores, key[part][..., seen, :], out=dquery[part][..., rows, :])
            dkey[part][..., seen, :] += dscores.swapaxes(-1, -2) @ scaled[part][..., rows, :]
        dquery *= scale
        return dquery, dkey, dvalue

    return y, backward


def _strips(shape: tuple[int, ...], left: int | None, right: int | None) -> Iterator[tuple[Any, slice, slice, NDArray]]:
    """Pieces of the band: (part of the first axis, query rows, the keys that they see between them, what each row must not see of them)."""
    *lead, t, s = shape
    left, right = s if left is None else min(left, s), t if right is None else min(right, t)     # further than that, there is nothing
    keys, places = np.arange(s), np.arange(s - t, s)[:, None]    # places: where the queries stand among the keys, (T, 1)
    for start in range(0, t, _STRIP):
        rows = slice(start, start + _STRIP)                      # beyond T in the last strip: slices end where the array does
        first, last = places[rows][0, 0], places[rows][-1, 0]
        seen = slice(max(first - left, 0), max(last + right + 1, 0))
        distance = keys[seen] - places[rows]                     # (h, left + h + right)
        hidden = (distance < -left) | (distance > right)
        for part in blocks(lead[0], math.prod(lead[1:]) * hidden.size) if lead else [...]:
            yield part, rows, seen, hidden


def _kept(noise: Noise, dropout: float, shape: tuple[int, ...], part: Any, rows: slice, seen: slice) -> NDArray:
    """(..., h, left + h + right) booleans: this piece of the dense table of what is kept."""
    *lead, t, s = shape
    outer = [part.indices(lead[0])[:2], *((0, n) for n in lead[1:])] if lead else []
    bits = random_bits(noise, shape, part=(*outer, rows.indices(t)[:2], seen.indices(s)[:2]))
    return bits >= round(dropout * 2**32)
