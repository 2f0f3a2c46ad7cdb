"""Attention sinks: one learned score per head that takes part in the softmax and brings no value (gpt-oss, OpenAI 2025,
arXiv:2508.10925; Xiao et al. 2023, arXiv:2309.17453, for why attention wants one)."""

from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, same_shape
from byhand.noise import Noise
from numpy_impl.attention._grouped import attend


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
    >>> import numpy as np
    >>> query, key, value = np.zeros((1, 1, 2)), np.zeros((1, 3, 2)), np.ones((1, 3, 1))
    >>> y, backward = sink_attention(query, key, value, np.array([0.0]))    # three keys and a sink, all of one score
    >>> y.ravel()
    array([0.75])
    """
    who = "sink_attention"
    demand(who, sinks is not None, "sinks as an array", sinks=sinks)
    floats(who, query=query, key=key, value=value, sinks=sinks, bias=bias)
    at_least_rank(who, 3, query=query, key=key, value=value)
    *lead, h, _, e = query.shape
    k, s = key.shape[-3:-1]
    demand(who, h > 0 and k > 0 and h % k == 0, "query heads that are a multiple of the heads of key", query=query, key=key)
    same_shape(who, (*lead, k, s, e), key=key)
    same_shape(who, (*lead, k, s, value.shape[-1]), value=value)
    same_shape(who, (h,), sinks=sinks)
    return attend(who, query, key, value, sinks, bias, mask, causal, scale, soft_cap, dropout, noise)
