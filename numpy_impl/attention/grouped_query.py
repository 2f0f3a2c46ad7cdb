"""Attention whose query heads share keys and values: in groups (Ainslie et al. 2023, arXiv:2305.13245), or all of them (Shazeer 2019,
arXiv:1911.02150)."""

from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, same_shape
from byhand.noise import Noise
from numpy_impl.attention._grouped import attend


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
    >>> import numpy as np
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
    y, attend_backward = attend(who, query, key, value, None, bias, mask, causal, scale, soft_cap, dropout, noise)

    def backward(dy):
        dquery, dkey, dvalue, _, dbias = attend_backward(dy)
        return dquery, dkey, dvalue, dbias

    return y, backward


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
    >>> import numpy as np
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
    y, attend_backward = attend(who, query, one_key, one_value, None, bias, mask, causal, scale, soft_cap, dropout, noise)

    def backward(dy):
        dquery, dkey, dvalue, _, dbias = attend_backward(dy)
        return dquery, dkey[..., 0, :, :], dvalue[..., 0, :, :], dbias

    return y, backward
