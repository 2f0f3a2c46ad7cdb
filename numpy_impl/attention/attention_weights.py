"""The weights of scaled dot-product attention, to be drawn or read (Vaswani et al. 2017, arXiv:1706.03762, equation 1)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, positive, same_shape
from numpy_impl.attention.scaled_dot_product import _cap, _softmax_in_place, _sum_to


def attention_weights(
    query: NDArray,
    key: NDArray,
    bias: NDArray | None = None,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> tuple[NDArray, Callable]:
    """P = softmax(cap(scale · query · keyᵀ) + bias)  over the keys that a query may see: what `scaled_dot_product` multiplies values by.

    Parameters
    ----------
    query : (..., T, E)       float32 or float64
    key : (..., S, E)         the same leading axes as query
    bias : (..., T, S)        added to the capped scores; may broadcast; −inf hides a key
    mask : (..., T, S) bool   True = may see; may broadcast
    causal : bool             query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float             1/√E by default
    soft_cap : float          cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default

    Returns
    -------
    P : (..., T, S)   each row sums to 1; a query that sees nothing has a row of zeros, and passes no gradient
    backward : dP (..., T, S) -> dquery, dkey, dbias (None without bias)

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, scale is not finite or soft_cap not positive

    Examples
    --------
    >>> x = np.eye(2)
    >>> p, backward = attention_weights(x, x, causal=True)
    >>> p.round(4)
    array([[1.    , 0.    ],
           [0.3302, 0.6698]])
    """
    who = "attention_weights"
    floats(who, query=query, key=key, bias=bias)
    at_least_rank(who, 2, query=query, key=key)
    *lead, t, e = query.shape
    s = key.shape[-2]
    same_shape(who, (*lead, s, e), key=key)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)

    scaled = query * scale                              # (..., T, E): cheaper than scaling (..., T, S)
    scores, slope = scaled @ key.swapaxes(-1, -2), None  # (..., T, S)
    if soft_cap is not None:
        scores, slope = _cap(scores, soft_cap)
    if bias is not None:
        scores += bias
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    if causal:
        np.copyto(scores, -np.inf, where=~np.tri(t, s, s - t, dtype=bool))
    p = _softmax_in_place(scores)

    def backward(dp):
        # Raising one score lowers the other weights of its row: ds = P · (dP − Σ P · dP). Where P is 0, nothing passes.
        dscores = dp - np.vecdot(p, dp)[..., None]
        dscores *= p
        dbias = None if bias is None else _sum_to(dscores, bias.shape)
        if slope is not None:
            dscores *= slope
        # scores = (scale · Q) Kᵀ
        dquery = dscores @ key
        dquery *= scale
        return dquery, dscores.swapaxes(-1, -2) @ scaled, dbias

    return p, backward
