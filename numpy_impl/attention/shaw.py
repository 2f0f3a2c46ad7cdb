"""Attention with learned vectors for relative positions (Shaw, Uszkoreit & Vaswani 2018, arXiv:1803.02155)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, same_shape, size
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _pieces, _softmax_in_place, _sum_to
from numpy_impl.ops.random_bits import random_bits
from numpy_impl.positions._distances import skewed, sum_runs, unskew


def shaw_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    key_table: NDArray,
    value_table: NDArray | None = None,
    *,
    max_distance: int,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y_t = Σ_s P[t, s] (value_s + b_i),  P = dropout(softmax(scale · query_t · (key_s + a_i))),  i = k + clip(s − (t + S − T), −k, k).

    A key and its value are told apart by how many tokens they stand after the query (a negative number: before it), up to
    k = max_distance either way; all that is further away looks equally far. a = key_table, b = value_table.

    Parameters
    ----------
    query : (..., T, E)            float32 or float64
    key : (..., S, E)              the same leading axes as query
    value : (..., S, W)            the same leading axes, and a width of its own
    key_table : (2k + 1, E)        a, from k tokens before the query to k tokens after it; all heads share it, as in the paper
    value_table : (2k + 1, W)      b, or None for values without positions
    max_distance : int             k ≥ 0
    mask : (..., T, S) bool        True = may see; may broadcast
    causal : bool                  query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float                  1/√E by default
    dropout : float                the share of the probabilities that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise                  the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue, dkey_table, dvalue_table (None without one)

    A query that sees nothing gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, dropout is outside [0, 1], scale is not finite or max_distance is no integer ≥ 0

    Examples
    --------
    >>> x, before_itself_after = np.eye(3), np.array([[9.0] * 3, [0.0] * 3, [0.0] * 3])
    >>> y, backward = shaw_attention(x, x, x, before_itself_after, max_distance=1)       # what comes before is what counts
    >>> y.round(2)
    array([[0.47, 0.26, 0.26],
           [0.98, 0.01, 0.01],
           [0.5 , 0.5 , 0.  ]])
    """
    who = "shaw_attention"
    floats(who, query=query, key=key, value=value, key_table=key_table, value_table=value_table)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, at_least=0, max_distance=max_distance)
    same_shape(who, (2 * max_distance + 1, e), key_table=key_table)
    same_shape(who, (2 * max_distance + 1, w), value_table=value_table)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    in_range(who, 0, 1, dropout=dropout)

    shape = (*lead, t, s)
    hidden = None if mask is None else np.broadcast_to(~mask, shape)
    kept = None if noise is None or dropout == 0 else random_bits(noise, shape) >= round(dropout * 2**32)
    grown = 0.0 if dropout == 1 else 1 / (1 - dropout)

    # q · (key_s + a_i) = q · key_s + q · a_i: the second term has only 2k + 1 values for a query, one for each row of the table. They
    # are computed once and spread over the keys. Likewise Σ_s P_s (value_s + b_i) = Σ_s P_s value_s + Σ_i C_i b_i, where C_i collects
    # the probabilities of the keys that row i stands for. To spread and to collect are each other's transpose, and so each is the
    # other's pullback. Nothing of size (T, S, E) is ever needed.
    scaled = query * scale                                                       # (..., T, E)
    y = np.empty_like(query, shape=(*lead, t, w))
    trail = []                                                                   # what the pullback needs of each strip, P above all
    for part, rows, seen in _pieces(shape, causal):
        q = scaled[part][..., rows, :]
        scores = q @ key[part][..., seen, :].swapaxes(-1, -2)                    # (..., strip, seen)
        n_queries, n_keys = scores.shape[-2:]
        ids = _rows_of_table(rows.start + s - t, n_queries, n_keys, max_distance)
        scores += _spread(q @ key_table.T, ids, n_keys)
        if hidden is not None:
            np.copyto(scores, -np.inf, where=hidden[part][..., rows, seen])
        if causal:
            np.copyto(scores, -np.inf, where=~np.tri(n_queries, n_keys, rows.start + s - t, dtype=bool))
        p = _softmax_in_place(scores)
        dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
        np.matmul(dropped, value[part][..., seen, :], out=y[part][..., rows, :])
        if value_table is not None:
            y[part][..., rows, :] += _collect(dropped, ids, max_distance) @ value_table
        trail.append((part, rows, seen, ids, p))

    def backward(dy):
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        dkey_table = np.zeros_like(key_table)
        dvalue_table = None if value_table is None else np.zeros_like(value_table)
        for part, rows, seen, ids, p in trail:
            # y = dropout(P) V + collect(dropout(P)) b
            dropped = p if kept is None else p * kept[part][..., rows, seen] * grown
            dy_rows = dy[part][..., rows, :]
            dvalue[part][..., seen, :] += dropped.swapaxes(-1, -2) @ dy_rows
            dp = dy_rows @ value[part][..., seen, :].swapaxes(-1, -2)
            if value_table is not None:
                collected = _collect(dropped, ids, max_distance)
                dvalue_table += _sum_to(collected.swapaxes(-1, -2) @ dy_rows, value_table.shape)
                dp += _spread(dy_rows @ value_table.T, ids, dp.shape[-1])
            if kept is not None:
                dp *= kept[part][..., rows, seen]
                dp *= grown
            # P = softmax(scores): ds = P · (dP − Σ P · dP), as in scaled_dot_product. Where P is 0, nothing passes.
            dp -= np.vecdot(p, dp)[..., None]
            dscores = np.multiply(dp, p, out=dp)
            # scores = (scale · Q) Kᵀ + spread((scale · Q) aᵀ)
            q, by_row = scaled[part][..., rows, :], _collect(dscores, ids, max_distance)
            np.matmul(dscores, key[part][..., seen, :], out=dquery[part][..., rows, :])
            dquery[part][..., rows, :] += by_row @ key_table
            dkey[part][..., seen, :] += dscores.swapaxes(-1, -2) @ q
            dkey_table += _sum_to(by_row.swapaxes(-1, -2) @ q, key_table.shape)
        dquery *= scale
        return dquery, dkey, dvalue, dkey_table, dvalue_table

    return y, backward


def _rows_of_table(beside: int, queries: int, keys: int, max_distance: int) -> NDArray:
    """(keys + queries,): which row of the table stands for a key, by how far it stands from a query, from the furthest before it on.

    The first of the queries stands beside the key number `beside`.
    """
    after = np.arange(keys + queries) - (beside + queries - 1)
    return max_distance + np.clip(after, -max_distance, max_distance)


def _spread(by_row: NDArray, ids: NDArray, keys: int) -> NDArray:
    """(..., queries, 2k + 1) -> (..., queries, keys): for every key the number of its row of the table."""
    return skewed(np.take(by_row, ids, axis=-1), keys)


def _collect(by_key: NDArray, ids: NDArray, max_distance: int) -> NDArray:
    """(..., queries, keys) -> (..., queries, 2k + 1): for every row of the table the sum over its keys."""
    return sum_runs(unskew(by_key, len(ids)), ids, 2 * max_distance + 1)
