"""Attention to the neighbours and, beyond them, to every n-th key (Child et al. 2019, arXiv:1904.10509, "strided"; dilated windows:
Beltagy, Peters & Cohan 2020, arXiv:2004.05150).

With i the place of a query among the keys, it sees key s if

    |i − s| ≤ local                                       near: a band, as in a sliding window
    or  i − s is a multiple of stride, |i − s| ≤ reach    far: as many steps as reach allows, to both ends by default

Neither part is computed from the whole table. The near one lies in strips of neighbouring queries. For the far one the positions are
regrouped by what they leave when divided by stride: the queries of a class see keys of the same class only, and within a class
"every n-th" is a plain window again.

    stride 3:   0 1 2 3 4 5 6 7 8 9   ->   0 3 6 9  |  1 4 7  |  2 5 8

A query has scores in two pieces then, one of its strip and one of its class, and one softmax over both: the peak of a row and the sum of
its exponentials are gathered over all pieces before any of them is divided by that sum. Near keys are hidden in the far pieces, so that
nothing is counted twice. The cost is T · (2 · local + h + S / stride) scores, in time and in memory, h = 64 being the height of a strip;
least, about T · √S, where local and stride are near √S.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, floats, in_range, positive, same_shape, size
from numpy_impl.attention.scaled_dot_product import _cap

_STRIP = 64  # h


def strided_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    *,
    stride: int,
    local: int = 0,
    reach: int | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> tuple[NDArray, Callable]:
    """y = P · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys that are near, or whole strides away.

    Query t, at place i = t + S − T (the last query beside the last key), sees key s if |i − s| ≤ local, or if i − s is a multiple of
    stride and |i − s| ≤ reach.

    Parameters
    ----------
    query : (..., T, E)   float32 or float64
    key : (..., S, E)     the same leading axes as query
    value : (..., S, W)   the same leading axes, and a width of its own
    stride : int          ≥ 1, in positions
    local : int           ≥ 0, in positions: how far on either side every key is seen
    reach : int           ≥ 0, in positions: how far on either side every stride-th key is seen; None is no limit. With local = 0 this is
                          a dilated window
    causal : bool         keys after the query's own place are hidden
    scale : float         1/√E by default
    soft_cap : float      cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing gives y = 0 and passes no gradient. It is scaled_dot_product with this pattern as its mask. There is no
    dropout: to make the random bits of a class, those of the whole table would have to be made.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, stride, local or reach is out of range, scale is not finite or soft_cap not positive

    Examples
    --------
    >>> x = np.zeros((6, 1))                                     # all scores are equal: y is the mean of what is seen
    >>> y, backward = strided_attention(x, x, np.eye(6), stride=3, local=1, causal=True)
    >>> (y > 0).astype(int)
    array([[1, 0, 0, 0, 0, 0],
           [1, 1, 0, 0, 0, 0],
           [0, 1, 1, 0, 0, 0],
           [1, 0, 1, 1, 0, 0],
           [0, 1, 0, 1, 1, 0],
           [0, 0, 1, 0, 1, 1]])
    """
    who = "strided_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, stride=stride)
    size(who, at_least=0, local=local)
    if reach is not None:
        size(who, at_least=0, reach=reach)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)

    scaled = query * scale                                       # (..., T, E): cheaper than scaling the scores
    lowest = np.finfo(query.dtype).min                           # in the place of a peak of −inf: −inf − (−inf) would be NaN
    peak = np.full_like(query, lowest, shape=(*lead, t, 1))
    trail = []                                                   # of every piece its scores, which soon are probabilities
    for rows, columns, hidden in _pieces(t, s, stride, local, reach, causal):
        scores, slope = scaled[..., rows, :] @ key[..., columns, :].swapaxes(-1, -2), None
        if soft_cap is not None:
            scores, slope = _cap(scores, soft_cap)
        np.copyto(scores, -np.inf, where=hidden)
        peak[..., rows, :] = np.maximum(peak[..., rows, :], scores.max(-1, keepdims=True, initial=lowest))
        trail.append((rows, columns, scores, slope))
    total = np.zeros_like(peak)
    for rows, _, scores, _ in trail:
        scores -= peak[..., rows, :]
        np.exp(scores, out=scores)
        total[..., rows, :] += scores @ np.ones((scores.shape[-1], 1), scores.dtype)         # the sum of each row
    np.maximum(total, 1, out=total)                              # a query that sees anything has an exp(0) = 1 somewhere
    y = np.zeros_like(query, shape=(*lead, t, w))
    for rows, columns, p, _ in trail:
        p /= total[..., rows, :]
        y[..., rows, :] += p @ value[..., columns, :]

    def backward(dy):
        dquery, dkey, dvalue = np.zeros_like(query), np.zeros_like(key), np.zeros_like(value)
        # P = softmax(scores): ds = P · (dP − Σ P · dP), and the sum, like the softmax, runs over all pieces of a row.
        dps, along = [], np.zeros_like(peak)
        for rows, columns, p, _ in trail:
            # y = P V
            dvalue[..., columns, :] += p.swapaxes(-1, -2) @ dy[..., rows, :]
            dp = dy[..., rows, :] @ value[..., columns, :].swapaxes(-1, -2)
            along[..., rows, :] += np.vecdot(p, dp)[..., None]
            dps.append(dp)
        for (rows, columns, p, slope), dscores in zip(trail, dps, strict=True):
            dscores -= along[..., rows, :]
            dscores *= p
            if slope is not None:
                dscores *= slope
            # scores = (scale · Q) Kᵀ
            dquery[..., rows, :] += dscores @ key[..., columns, :]
            dkey[..., columns, :] += dscores.swapaxes(-1, -2) @ scaled[..., rows, :]
        dquery *= scale
        return dquery, dkey, dvalue

    return y, backward


def _pieces(t: int, s: int, stride: int, local: int, reach: int | None, causal: bool) -> Iterator[tuple[slice, slice, NDArray]]:
    """Pieces of the table in which everything seen lies once: (query rows, key columns, what of it is hidden), first near, then far."""
    longest = max(t, s)                                          # further than that, there is nothing
    local, far = min(local, longest), longest if reach is None else min(reach, longest)
    for step, nearest, furthest in ((1, 0, local), (stride, local + 1, far)):
        for first in range(min(step, t)):                        # the queries first, first + step, … are a class
            places = np.arange(first + s - t, s, step)[:, None]
            residue = (first + s - t) % step
            keys = np.arange(residue, s, step)
            for start in range(0, len(places), _STRIP):
                own = places[start:start + _STRIP]
                ends = own[0, 0] - furthest, own[-1, 0] + (0 if causal else furthest) + 1
                begin, end = (int(i) for i in np.searchsorted(keys, ends))
                distance = keys[begin:end] - own                 # (h, seen)
                hidden = (abs(distance) < nearest) | (abs(distance) > furthest)
                if causal:
                    hidden |= distance > 0
                yield (slice(first + start * step, (start + _STRIP) * step, step),
                       slice(residue + begin * step, end * step, step), hidden)
