"""Flash attention: exact attention whose memory grows with T, not with T² (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691).

Plain attention fills a table of T × S probabilities and keeps it for the backward. Here only a tile of that table exists at a time, a few
queries by a few keys; it is used up where it stands, and the backward makes it again. What makes that possible:

**Forward: a softmax in pieces.** Let sᵢⱼ be the score of query i for key j, −∞ where the key is hidden. Then

    yᵢ = Σⱼ exp(sᵢⱼ) vⱼ / Σⱼ exp(sᵢⱼ).

Both sums can be taken tile by tile. Only, exp overflows; so we sum exp(sᵢⱼ − m), with m the largest score met so far. When a tile brings a
larger one, m′, everything summed before is too large by one and the same factor, exp(m′ − m), and is put right in one go:

    total ← total · exp(m − m′) + Σⱼ exp(sᵢⱼ − m′)            (j runs over the keys of the tile)
    acc   ← acc   · exp(m − m′) + Σⱼ exp(sᵢⱼ − m′) vⱼ

After the last tile yᵢ = acc / total. Beside y, the log-sum-exp Lᵢ = log Σⱼ exp(sᵢⱼ) = m + log total is kept: it is all that a probability
needs to be had again from its score alone,  Pᵢⱼ = exp(sᵢⱼ) / Σₖ exp(sᵢₖ) = exp(sᵢⱼ − Lᵢ) = exp(sᵢⱼ − m) / total.  We keep its two parts, m
and total: where scores are large, their sum in float32 would round away what total has to say.

**Backward: from dy to dq, dk and dv.**

1. yᵢ = Σⱼ Pᵢⱼ vⱼ gives  dvⱼ = Σᵢ Pᵢⱼ dyᵢ  and  dPᵢⱼ = dyᵢ · vⱼ.
2. Each row of P is a softmax, ∂Pᵢⱼ/∂sᵢₖ = Pᵢⱼ (δⱼₖ − Pᵢₖ). Hence  dsᵢₖ = Σⱼ dPᵢⱼ Pᵢⱼ (δⱼₖ − Pᵢₖ) = Pᵢₖ (dPᵢₖ − Dᵢ)  with  Dᵢ = Σⱼ Pᵢⱼ dPᵢⱼ.
3. That sum runs over all keys, and a tile knows only its own. But put step 1 into it:  Dᵢ = Σⱼ Pᵢⱼ (dyᵢ · vⱼ) = dyᵢ · Σⱼ Pᵢⱼ vⱼ = dyᵢ · yᵢ.
   So D = rowsum(dy ∘ y) is known before the first tile. It is what y is kept for.
4. sᵢⱼ = c · tanh(xᵢⱼ / c) − slope · |distance|  with  xᵢⱼ = scale · qᵢ · kⱼ. The ALiBi term is a constant, and tanh′ = 1 − tanh². Hence
   dxᵢⱼ = dsᵢⱼ (1 − tanh²(xᵢⱼ / c)),  dqᵢ = scale · Σⱼ dxᵢⱼ kⱼ  and  dkⱼ = scale · Σᵢ dxᵢⱼ qᵢ.
5. With dropout yᵢ = Σⱼ Pᵢⱼ Rᵢⱼ vⱼ, where R is 0 for what is dropped and 1 / (1 − p) for the rest. The backward draws a tile's part of R
   once more, from the same counters. Step 1 becomes  dvⱼ = Σᵢ Pᵢⱼ Rᵢⱼ dyᵢ,  dPᵢⱼ = Rᵢⱼ (dyᵢ · vⱼ),  and step 3 holds as it stands:
   Dᵢ = Σⱼ Pᵢⱼ Rᵢⱼ (dyᵢ · vⱼ) = dyᵢ · yᵢ.

**In the code** a tile lies keys down, queries across: what belongs to a query (m, total, D) is then a row that the tile's rows share. The
factors of P and R that belong to a query, 1 / total and 1 / (1 − p), are put into dyᵢ and Dᵢ, which are small, and not into the tile. And
what is to be subtracted from a product becomes one more term of the product, which costs next to nothing:

    (dyᵢ, −Dᵢ) · (vⱼ, 1) = dyᵢ · vⱼ − Dᵢ
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand import checks
from byhand.checks import at_least_rank, floats, in_range, per_axis, positive, same_shape
from byhand.noise import Noise
from numpy_impl.attention._room import Room
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops.random_bits import random_bits

Window = tuple[int | None, int | None]

_TILE = 64, 192     # queries and keys: products of up to a million terms (64 · 192 · 64) are multiplied where they lie, unpacked
_CALM = 20.0        # between exp(−20) and exp(20), sums and products neither overflow nor lose their small terms
_FAR = 1 << 40      # further than any key


def flash_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    *,
    causal: bool = False,
    window: Window = (None, None),
    scale: float | None = None,
    soft_cap: float | None = None,
    alibi_slopes: NDArray | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    tile: int | tuple[int, int] | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) − slope · |distance|)  over the keys that a query may see.

    What scaled_dot_product computes, to rounding, in memory that grows with T + S. The derivation stands at the top of this file.

    Parameters
    ----------
    query : (..., T, E)       float32 or float64
    key : (..., S, E)         the same leading axes as query
    value : (..., S, W)       the same leading axes, and a width of its own
    causal : bool             query t stands beside key t + S − T (the last query beside the last key) and sees no later one
    window : (left, right)    how many keys before and after its own place a query sees, the ends included; None: all
    scale : float             1/√E by default
    soft_cap : float          cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    alibi_slopes : (H,)       one slope for each entry of axis −3 of query: a score falls by slope · |key − place of the query|
    dropout : float           the share of P that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise             the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing
    tile : int or (int, int)  queries and keys worked on at a time; a matter of speed, not of the result

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing gives y = 0 and passes no gradient. The slopes are constants and get no gradient. The pullback reads y.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, window, tile or dropout is out of range, scale is not finite or soft_cap not positive

    Examples
    --------
    >>> x = np.eye(2)
    >>> y, backward = flash_attention(x, x, x, causal=True)
    >>> y.round(4)
    array([[1.    , 0.    ],
           [0.3302, 0.6698]])
    """
    scale, tile = _checked("flash_attention", query, key, value, window, scale, soft_cap, alibi_slopes, dropout, tile)
    t, s = query.shape[-2], key.shape[-2]
    place = np.arange(t) + (s - t)
    low, high = _sight(place, 0, s, causal, window)
    return _attend(query, key, value, place, low, high, scale, soft_cap, alibi_slopes, dropout, noise, tile)


def _checked(who, query, key, value, window, scale, soft_cap, alibi_slopes, dropout, tile) -> tuple[float, tuple[int, ...]]:
    """Raise what flash_attention and flash_attention_varlen must; scale and tile with their defaults filled in."""
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, _, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    checks.window(who, window=window)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    if alibi_slopes is not None:
        floats(who, alibi_slopes=alibi_slopes)
        at_least_rank(who, 3, query=query)
        same_shape(who, lead[-1:], alibi_slopes=alibi_slopes)
    in_range(who, 0, 1, dropout=dropout)
    return float(scale), _TILE if tile is None else per_axis(who, 2, tile=tile)


def _sight(place: NDArray, start: int | NDArray, stop: int | NDArray, causal: bool, window: Window) -> tuple[NDArray, NDArray]:
    """(low, high): the query at `place` among the keys from `start` to `stop` sees the keys low ≤ j < high. All are (T,) and never fall."""
    left, right = (_FAR if reach is None else min(reach, _FAR) for reach in window)
    right = 0 if causal else right
    return np.clip(place - left, start, stop), np.clip(place + right + 1, start, stop)


def _attend(query, key, value, place, low, high, scale, soft_cap, alibi_slopes, dropout, noise, tile) -> tuple[NDArray, Callable]:
    """(y, backward) of queries that stand at `place` among the keys and see the keys from `low` to `high`, each (T,)."""
    *lead, t, e = query.shape
    s, w = value.shape[-2:]
    n, dtype = math.prod(lead), query.dtype
    q, k, v = query.reshape(n, t, e), key.reshape(n, s, e), value.reshape(n, s, w)
    slopes = None if alibi_slopes is None else np.broadcast_to(alibi_slopes, lead).reshape(n, 1, 1).astype(dtype)
    dropout = 0.0 if noise is None else float(dropout)
    drops, grown = dropout > 0, 0.0 if dropout == 1 else 1 / (1 - dropout)

    def scores(room, heads, rows, keys, columns):
        """The scores of a tile, (G, keys, queries), and tanh(x / c) if there is a cap: step 4."""
        x = np.matmul(k[heads, keys], columns, out=room("scores", len(columns), keys.stop - keys.start, columns.shape[-1]))
        tanh = None
        if soft_cap is not None:
            x /= soft_cap
            tanh = np.tanh(x)
            np.multiply(tanh, soft_cap, out=x)
        if slopes is not None:
            x -= slopes[heads] * np.abs(np.arange(keys.start, keys.stop)[:, None] - place[rows]).astype(dtype)
        _hide(x, keys.start, low[rows], high[rows])
        return x, tanh

    def kept(heads, rows, keys):
        """The tile of the dropout mask, (G, keys, queries)."""
        part = tuple((piece.start, piece.stop) for piece in (heads, rows, keys))
        return (random_bits(noise, (n, t, s), part=part) >= round(dropout * 2**32)).swapaxes(-1, -2)

    room = Room(dtype)
    y, peak, total = np.empty((n, t, w), dtype), np.empty((n, 1, t), dtype), np.empty((n, 1, t), dtype)
    # |q · k| ≤ |q| |k|: where no score can be large, exp needs no help, and the peak stays 0.
    calm = slopes is None and abs(scale) * _longest(q) * _longest(k) <= _CALM
    for heads, rows, tiles in _strips(n, s, low, high, tile):
        columns = _columns(room, q[heads, rows], scale)                        # (G, E, R)
        g, _, r = columns.shape
        m = np.full((g, 1, r), 0 if calm else np.finfo(dtype).min, dtype)      # not −∞: −∞ − (−∞) would be NaN
        sums, acc = np.zeros((g, 1, r), dtype), np.zeros((g, r, w), dtype)
        for keys in tiles:
            p, _ = scores(room, heads, rows, keys, columns)
            if not calm:
                higher = np.maximum(m, p.max(-2, keepdims=True))
                shrunk, m = np.exp(m - higher), higher
                sums *= shrunk
                acc *= shrunk.swapaxes(-1, -2)
                p -= m
            np.exp(p, out=p)
            sums += np.ones((1, p.shape[-2]), dtype) @ p               # a sum over the keys; as a product it is faster
            if drops:
                p *= kept(heads, rows, keys)
            acc += np.matmul(p.swapaxes(-1, -2), v[heads, keys], out=room("rows", g, r, w))
        sums[sums == 0] = 1                                            # a query that sees nothing: y = 0 / 1
        np.multiply(acc, (grown / sums).swapaxes(-1, -2), out=y[heads, rows])
        peak[heads, :, rows], total[heads, :, rows] = m, sums

    def backward(dy):
        dy, room = dy.reshape(n, t, w), Room(dtype)
        d = np.vecdot(dy, y)[:, None] / total                          # (N, 1, T), D / total
        v1 = np.concatenate([v, np.ones((n, s, 1), dtype)], -1)        # (N, S, W + 1)
        dquery, dkey, dvalue = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        for heads, rows, tiles in _strips(n, s, low, high, tile):
            columns = _columns(room, q[heads, rows], scale)            # (G, E, R)
            g, _, r = columns.shape
            dz = np.multiply(dy[heads, rows], (grown / total[heads, :, rows]).swapaxes(-1, -2), out=room("dz", g, r, w))     # (G, R, W)
            dcolumns = room("dcolumns", g, w + 1, r)
            dcolumns[:, :w] = dz.swapaxes(-1, -2)
            dcolumns[:, w:] = 0 if drops else -d[heads, :, rows]       # with R between dy · v and D, D cannot be part of the product
            dq = np.zeros((g, r, e), dtype)
            for keys in tiles:
                p, tanh = scores(room, heads, rows, keys, columns)
                if not calm:
                    p -= peak[heads, :, rows]
                np.exp(p, out=p)                                       # P · total; what is divided by total is dz and D
                ds = np.matmul(v1[heads, keys], dcolumns, out=room("ds", *p.shape))      # steps 1 to 3: dP − D
                c = p.shape[-2]
                if drops:                                              # step 5
                    mask = kept(heads, rows, keys)
                    ds *= mask
                    ds -= d[heads, :, rows]
                    dvalue[heads, keys] += (p * mask) @ dz
                else:
                    dvalue[heads, keys] += np.matmul(p, dz, out=room("keys", g, c, w))   # step 1
                ds *= p                                                # step 2
                if tanh is not None:
                    ds *= 1 - tanh * tanh                              # step 4, also below
                dq += np.matmul(ds.swapaxes(-1, -2), k[heads, keys], out=room("rows", g, r, e))
                dkey[heads, keys] += np.matmul(ds, q[heads, rows], out=room("keys", g, c, e))
            np.multiply(dq, scale, out=dquery[heads, rows])
        dkey *= scale
        return dquery.reshape(query.shape), dkey.reshape(key.shape), dvalue.reshape(value.shape)

    return y.reshape(*lead, t, w), backward


def _strips(n: int, s: int, low: NDArray, high: NDArray, tile: tuple[int, ...]) -> Iterator[tuple[slice, slice, list[slice]]]:
    """(heads, queries, tiles of keys): every tile in which some query sees some key; what nobody sees is left out."""
    t = len(low)
    rows, columns = tile
    for piece in blocks(n, min(rows, t) * min(columns, s) // 2):       # as many heads as the cache holds
        heads = slice(piece.start, min(piece.stop, n))
        for start in range(0, t, rows):
            stop = min(start + rows, t)
            first, last = int(low[start]), int(high[stop - 1])         # the sights never fall: these are the lowest and the highest
            tiles = [slice(j, min(j + columns, last)) for j in range(first, last, columns)]
            yield heads, slice(start, stop), tiles


def _hide(scores: NDArray, start: int, low: NDArray, high: NDArray) -> None:
    """−∞ over what is hidden in a tile that begins with key `start`: keys before a query's low, and from its high on."""
    keys = np.arange(start, start + scores.shape[-2])[:, None]
    after = max(int(high[0]) - start, 0)                               # up to here, no key is later than any query sees
    if after < len(keys):
        np.copyto(scores[:, after:], -np.inf, where=keys[after:] >= high)
    if low[-1] > start:
        np.copyto(scores, -np.inf, where=keys < low)


def _columns(room: Room, rows: NDArray, scale: float) -> NDArray:
    """(G, R, E) -> (G, E, R): scaled, and in memory as in shape."""
    g, r, e = rows.shape
    return np.multiply(rows.swapaxes(-1, -2), scale, out=room("columns", g, e, r))


def _longest(x: NDArray) -> float:
    """The length of the longest row."""
    return math.sqrt(np.vecdot(x, x).max(initial=0))
