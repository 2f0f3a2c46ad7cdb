"""T5's relative positions: one learned number per head and bucket of distances (Raffel et al. 2020, arXiv:1910.10683, section 2.1)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from byhand.checks import exact_rank, floats, size
from numpy_impl.positions._distances import sum_runs, unskew

_STRIP = 64  # queries whose gradients are summed by distance at a time


def t5_buckets(
    *, queries: int, keys: int, bidirectional: bool = True, buckets: int = 32, max_distance: int = 128
) -> NDArray:
    """bucket[t, s] = f(d)  of the distance  d = t + S − T − s  from a query back to a key.

    With n buckets for a direction and e = ⌊n/2⌋ of them exact:

        f(d) = d                                                          if d < e
        f(d) = min(e + ⌊(n − e) · ln(d / e) / ln(max_distance / e)⌋, n − 1)   otherwise

    so that buckets beyond e are as wide as they are far, and the last one takes everything from nearly max_distance on. In both directions
    half of the buckets are for each, n = ⌊buckets/2⌋: the first for keys up to the query's own, the others, n + f(−d), for those after it.
    In one direction n = buckets, and all keys after the query share bucket 0 with its own: a causal mask is to hide them.

    Parameters
    ----------
    queries : int          T
    keys : int             S; query t stands beside key t + S − T, so that the last one stands beside the last key
    bidirectional : bool   in both directions (an encoder), or back only (a decoder)
    buckets : int          at least 4 in both directions, 2 in one
    max_distance : int     in tokens; greater than e

    Returns
    -------
    bucket : (T, S) int64, from 0 to buckets − 1

    Raises
    ------
    ValueError   if an argument is no integer or out of its range

    Examples
    --------
    >>> t5_buckets(queries=2, keys=7, bidirectional=False, buckets=4, max_distance=5)
    array([[3, 3, 2, 2, 1, 0, 0],
           [3, 3, 3, 2, 2, 1, 0]])
    """
    size("t5_buckets", at_least=0, queries=queries, keys=keys)
    return _by_key(_buckets("t5_buckets", queries, keys, bidirectional, buckets, max_distance), keys)


def t5_bias(
    table: NDArray, *, queries: int, keys: int, bidirectional: bool = True, max_distance: int = 128
) -> tuple[NDArray, Callable]:
    """bias[h, t, s] = table[bucket[t, s], h],  with the buckets of `t5_buckets`: added to the scores of attention.

    Parameters
    ----------
    table : (buckets, H)   one learned number per bucket and head, float32 or float64
    queries : int          T
    keys : int             S; query t stands beside key t + S − T, so that the last one stands beside the last key
    bidirectional : bool   in both directions (an encoder), or back only (a decoder)
    max_distance : int     in tokens; from here on (and a little before) all distances share a bucket

    Returns
    -------
    bias : (H, T, S)
    backward : dbias (H, T, S) -> dtable (buckets, H)

    Raises
    ------
    ValueError   if table is no matrix of float32 or float64 with enough rows, or another argument is no integer or out of its range

    Examples
    --------
    >>> bias, backward = t5_bias(np.array([[0.0], [1.0], [2.0], [3.0]]), queries=2, keys=3)
    >>> bias
    array([[[1., 0., 3.],
            [1., 1., 0.]]])
    >>> backward(np.ones((1, 2, 3)))
    array([[2.],
           [3.],
           [0.],
           [1.]])
    """
    floats("t5_bias", table=table)
    exact_rank("t5_bias", 2, table=table)
    size("t5_bias", at_least=0, queries=queries, keys=keys)
    n_buckets, heads = table.shape
    bucket = _buckets("t5_bias", queries, keys, bidirectional, n_buckets, max_distance)    # (S + T,), by how far ahead a key is

    def backward(dbias):
        # A bucket's number was added wherever a distance falls into it: dtable sums over the entries of each distance, then over the
        # distances of each bucket.
        by_distance = np.zeros((heads, keys + queries), dbias.dtype)                       # entry (t, s) belongs to number s − t + T
        for start in range(0, queries, _STRIP):
            stop = min(start + _STRIP, queries)
            by_distance[:, queries - stop + 1:] += unskew(dbias[:, start:stop], keys + stop - 1).sum(-2)   # column s − t + stop − 1
        return np.ascontiguousarray(sum_runs(by_distance, bucket, n_buckets).T)

    return np.ascontiguousarray(_by_key(np.take(table, bucket, axis=0).T, keys)), backward


def _buckets(who: str, queries: int, keys: int, bidirectional: bool, buckets: int, max_distance: int) -> NDArray:
    """(S + T,) int64: the buckets of keys that stand −S, …, T − 1 tokens after their query."""
    size(who, at_least=4 if bidirectional else 2, buckets=buckets)
    n = buckets // 2 if bidirectional else buckets
    exact = n // 2
    size(who, at_least=exact + 1, max_distance=max_distance)
    ahead = np.arange(-keys, queries)
    distance = np.abs(ahead) if bidirectional else np.maximum(-ahead, 0)
    # Where the formula gives a whole number, rounding must not take it below: hence 1e-9. (A logarithm of 0 would warn: hence the maximum.)
    steps = np.log(np.maximum(distance, exact) / exact) * ((n - exact) / math.log(max_distance / exact))
    coarse = np.minimum(exact + np.floor(steps + 1e-9).astype(np.int64), n - 1)
    bucket = np.where(distance < exact, distance, coarse)
    return bucket + n * (ahead > 0) if bidirectional else bucket


def _by_key(by_ahead: NDArray, keys: int) -> NDArray:
    """(..., S + T) -> (..., T, S), a view: row t holds the S entries from number T − t on, where key 0 stands T − t − S after query t."""
    return sliding_window_view(by_ahead, keys, axis=-1)[..., :0:-1, :]
