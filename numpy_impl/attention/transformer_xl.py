"""Transformer-XL's attention: contents and distances are scored apart (Dai et al. 2019, arXiv:1901.02860, section 3.3)."""

import math
from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, demand, floats, in_range, same_shape
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _sum_to, scaled_dot_product
from numpy_impl.positions.transformer_xl import relative_shift


def transformer_xl_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    position_key: NDArray,
    content_bias: NDArray,
    position_bias: NDArray,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y = dropout(softmax(scores)) · value,  scores[t, s] = scale · ((query_t + u) · key_s + (query_t + v) · r_d)  with  d = t + S − T − s.

    The score of absolute positions, (content + position of the query) · (content + position of the key), has four terms. Here the key's
    position becomes r_d, a projection of a sinusoid of the distance d, and the query's position, which says nothing about a distance,
    becomes two learned vectors: u = content_bias meets contents, v = position_bias meets distances.

    Parameters
    ----------
    query : (..., T, E)          float32 or float64
    key : (..., S, E)            the same leading axes as query; S > T where keys of earlier segments are remembered
    value : (..., S, W)          the same leading axes, and a width of its own
    position_key : (..., L, E)   row j is r_d of the distance d = S − 1 − j. L = S + max(T, 1) − 1, down to d = 1 − T; if causal, S
                                 rows are enough, down to d = 0. Leading axes may broadcast: (H, L, E) serves a whole batch
    content_bias : (..., E)      u; leading axes may broadcast to those of query: (H, E)
    position_bias : (..., E)     v, likewise
    mask : (..., T, S) bool      True = may see; may broadcast
    causal : bool                query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float                1/√E by default
    dropout : float              the share of the probabilities that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise                the stream whose bits, one word per entry of (..., T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue, dposition_key, dcontent_bias, dposition_bias

    A query that sees nothing gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, dropout is outside [0, 1] or scale is not finite

    Examples
    --------
    >>> import numpy as np
    >>> x, zeros = np.eye(2), np.zeros(2)
    >>> favours_itself = np.array([[0.0, 0.0], [9.0, 9.0]])                     # of the distances 1 and 0
    >>> y, backward = transformer_xl_attention(x, x, x, favours_itself, zeros, zeros, causal=True)
    >>> y.round(3)
    array([[1.   , 0.   ],
           [0.001, 0.999]])
    """
    who = "transformer_xl_attention"
    floats(who, query=query, key=key, value=value, position_key=position_key, content_bias=content_bias, position_bias=position_bias)
    at_least_rank(who, 2, query=query, key=key, value=value, position_key=position_key)
    *lead, t, e = query.shape
    s, distances = key.shape[-2], position_key.shape[-2]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, value.shape[-1]), value=value)
    every = distances == s + max(t, 1) - 1 or (causal and distances == s)
    needs = "a position_key for each of S + max(T, 1) − 1 distances, or of S if causal"
    demand(who, every, needs, position_key=position_key, query=query, key=key)
    demand(who, position_key.shape[-1] == e, "query and position_key of one width", query=query, position_key=position_key)
    broadcastable(who, (*lead, distances, e), position_key=position_key)
    at_least_rank(who, 1, content_bias=content_bias, position_bias=position_bias)
    broadcastable(who, (*lead, e), content_bias=content_bias, position_bias=position_bias)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    in_range(who, 0, 1, dropout=dropout)

    # By distance, a score is a product with one of L rows, whichever query asks. All of them are computed, and the shift finds each key's
    # distance among them; nothing of size (T, S, E) is ever needed. The result enters plain attention as a bias.
    asking = (query + position_bias[..., None, :]) * scale                       # (..., T, E)
    by_distance = asking @ position_key.swapaxes(-1, -2)                         # (..., T, L)
    by_key, shift_backward = relative_shift(by_distance, keys=s)                 # (..., T, S)
    y, attend_backward = scaled_dot_product(
        query + content_bias[..., None, :], key, value, by_key, mask=mask, causal=causal, scale=scale, dropout=dropout, noise=noise
    )

    def backward(dy):
        dcontent, dkey, dvalue, dby_key = attend_backward(dy)
        dby_distance = shift_backward(dby_key)
        dposition = scale * (dby_distance @ position_key)
        dposition_key = _sum_to(dby_distance.swapaxes(-1, -2) @ asking, position_key.shape)
        # The query stands in both sums, a bias in one, where it was repeated for every query.
        dcontent_bias, dposition_bias = (
            _sum_to(dsum.sum(-2), bias.shape) for dsum, bias in ((dcontent, content_bias), (dposition, position_bias))
        )
        return dcontent + dposition, dkey, dvalue, dposition_key, dcontent_bias, dposition_bias

    return y, backward
