"""Attention that reads a learned prefix before the text (Li & Liang 2021, arXiv:2101.00190)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, exact_rank, floats, same_shape
from byhand.noise import Noise
from numpy_impl.attention.grouped_query import grouped_query_attention
from numpy_impl.attention.scaled_dot_product import _sum_to
from numpy_impl.attention.sinks import sink_attention


def prefix_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    prefix_key: NDArray,
    prefix_value: NDArray,
    bias: NDArray | None = None,
    sinks: NDArray | None = None,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = attention(query, prefix_key ‖ key, prefix_value ‖ value):  every query sees the N entries of the prefix, which no mask hides.

    It is `grouped_query_attention`, or `sink_attention` where there are sinks, over N + S keys; the prefix is the same for all sequences.

    Parameters
    ----------
    query : (..., H, T, E)       float32 or float64
    key : (..., K, S, E)         the same leading axes as query; K divides H
    value : (..., K, S, W)       the same leading axes and heads as key, and a width of its own
    prefix_key : (K, N, E)       used as they are: nothing turns or normalises them
    prefix_value : (K, N, W)
    bias : (..., H, T, S)        added to the scores of the text; may broadcast; the prefix gets none
    sinks : (H,)                 the score of each head's sink; by default there are none
    mask : (..., H, T, S) bool   True = may see; may broadcast; of the text alone
    causal : bool                query t sees keys up to t + S − T, and the prefix

    scale, soft_cap, dropout and noise are those of `grouped_query_attention`; a word of noise for every entry of (..., H, T, N + S).

    Returns
    -------
    y : (..., H, T, W)
    backward : dy (..., H, T, W) -> dquery, dkey, dvalue, dprefix_key, dprefix_value, dbias, dsinks (None without bias, without sinks);
    those of the prefix are sums over all sequences

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, or an option is out of its range

    Examples
    --------
    >>> query, key, value = np.zeros((1, 2, 4)), np.zeros((1, 2, 4)), np.ones((1, 2, 1))
    >>> y, backward = prefix_attention(query, key, value, np.zeros((1, 1, 4)), np.full((1, 1, 1), 5.0), causal=True)
    >>> y.ravel()                                   # (5 + 1) / 2, then (5 + 1 + 1) / 3
    array([3.        , 2.33333333])
    >>> backward(np.ones_like(y))[4].ravel()        # 1/2 + 1/3
    array([0.83333333])
    """
    who = "prefix_attention"
    floats(who, query=query, key=key, value=value, prefix_key=prefix_key, prefix_value=prefix_value, bias=bias, sinks=sinks)
    at_least_rank(who, 3, query=query, key=key, value=value)
    exact_rank(who, 3, prefix_key=prefix_key, prefix_value=prefix_value)
    *lead, k, s, _ = key.shape
    n = prefix_key.shape[-2]
    same_shape(who, (k, n, key.shape[-1]), prefix_key=prefix_key)
    same_shape(who, (k, n, value.shape[-1]), prefix_value=prefix_value)
    booleans(who, mask=mask)
    broadcastable(who, (*query.shape[:-1], s), bias=bias, mask=mask)

    def with_prefix(text, prefix):                                      # (..., K, S, ·), (K, N, ·) -> (..., K, N + S, ·)
        return np.concatenate([np.broadcast_to(prefix, (*lead, *prefix.shape)), text], -2)

    def without_prefix(scores, at_prefix):                              # (..., S) or (..., 1) -> (..., N + S)
        scores = np.broadcast_to(scores, (*scores.shape[:-1], s))
        return np.concatenate([np.full((*scores.shape[:-1], n), at_prefix, scores.dtype), scores], -1)

    keys, values = with_prefix(key, prefix_key), with_prefix(value, prefix_value)
    wide_bias = None if bias is None else without_prefix(bias, 0)
    wide_mask = None if mask is None else without_prefix(mask, True)
    # causal needs no such care: the last query stands beside the last key, so that all of them stand behind the prefix.
    options = dict(mask=wide_mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise)
    if sinks is None:
        y, attend_backward = grouped_query_attention(query, keys, values, wide_bias, **options)
    else:
        y, attend_backward = sink_attention(query, keys, values, sinks, wide_bias, **options)
    bias_shape = None if bias is None else bias.shape

    def backward(dy):
        dquery, dkeys, dvalues, *dsinks, dbias = attend_backward(dy)
        # y reads the rows of a concatenation, whose gradient comes apart where it was put together.
        sequences = tuple(range(len(lead)))
        dprefix_key, dprefix_value = dkeys[..., :n, :].sum(sequences), dvalues[..., :n, :].sum(sequences)
        dbias = None if bias_shape is None else _sum_to(dbias[..., n:], bias_shape)
        return dquery, dkeys[..., n:, :], dvalues[..., n:, :], dprefix_key, dprefix_value, dbias, dsinks[0] if dsinks else None

    return y, backward
