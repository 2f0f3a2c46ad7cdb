"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, section 2.1): keys and values that are never built.

Every key and value is made from a short latent c of R numbers a token, which all heads share, by projections of each head's own:

    key_h = W_h c,     value_h = V_h c.

To build them for H heads would undo what the latent saves. It is not needed, since a score is linear in the key, and y in the values:

    q · (W_h c) = (q W_h) · c,     Σₛ Pₛ (V_h cₛ) = V_h (Σₛ Pₛ cₛ).

The projections are *absorbed*: W_h into the query, which becomes as wide as the latent, V_h into what comes out. In between stands
multi-query attention, with the latents as the keys and as the values of all heads.

Where in the text a token stands cannot pass through W_h: a turn by its position, between q and W_h c, would have to be absorbed too, and
it is another one for every pair of tokens. So positions have numbers of their own, P in every query and P beside every latent, and their
product is added to the score (*decoupled* rotary position). A cache holds R + P numbers a token, for all heads together.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, demand, exact_rank, floats, in_range, positive, same_shape
from byhand.noise import Noise
from numpy_impl.attention.grouped_query import multi_query_attention


def latent_attention(
    query: NDArray,
    latent: NDArray,
    weight_k: NDArray,
    weight_v: NDArray,
    query_rope: NDArray | None = None,
    key_rope: NDArray | None = None,
    *,
    mask: NDArray | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[NDArray, Callable]:
    """y_h = dropout(P_h) · latent · weight_v_hᵀ,  P_h = softmax(cap(scale · (query_h · weight_k_h · latentᵀ + query_rope_h · key_ropeᵀ))).

    Parameters
    ----------
    query : (..., H, T, E)         without position, float32 or float64
    latent : (..., S, R)           the same leading axes as query, without heads
    weight_k : (H, E, R)           key_h = latent · weight_k_hᵀ, which is not computed
    weight_v : (H, W, R)           value_h = latent · weight_v_hᵀ, which is not computed
    query_rope : (..., H, T, P)    turned by their positions (positions.rotary); both or none
    key_rope : (..., S, P)         turned by their positions; shared by all heads
    mask : (..., H, T, S) bool     True = may see; may broadcast
    causal : bool                  query t sees keys up to t + S − T: the last query stands beside the last key
    scale : float                  1/√(E + P) by default
    soft_cap : float               cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default
    dropout : float                the share of P_h that is dropped, in [0, 1]; the rest grows by 1 / (1 − dropout)
    noise : Noise                  the stream whose bits, one word per entry of (..., H, T, S), decide what is dropped; None drops nothing

    Returns
    -------
    y : (..., H, T, W)
    backward : dy (..., H, T, W) -> dquery, dlatent, dweight_k, dweight_v, dquery_rope, dkey_rope (both None without positions)

    It is scaled_dot_product on the keys latent · weight_k_hᵀ ‖ key_rope and the values latent · weight_v_hᵀ; a query that sees nothing
    gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if there is no head, one of query_rope and key_rope is missing, shapes do not fit, dtypes differ, dropout is outside
                 [0, 1], scale is not finite or soft_cap not positive

    Examples
    --------
    >>> query, latent = np.zeros((2, 1, 3)), np.array([[1.0], [3.0]])                    # two heads; two tokens, one number each
    >>> y, backward = latent_attention(query, latent, np.ones((2, 3, 1)), np.array([[[1.0]], [[10.0]]]))
    >>> y.ravel()
    array([ 2., 20.])
    """
    who = "latent_attention"
    floats(who, query=query, latent=latent, weight_k=weight_k, weight_v=weight_v, query_rope=query_rope, key_rope=key_rope)
    at_least_rank(who, 3, query=query)
    at_least_rank(who, 2, latent=latent)
    exact_rank(who, 3, weight_v=weight_v)
    *lead, h, t, e = query.shape
    s, r = latent.shape[-2:]
    demand(who, h > 0, "query with at least one head", query=query)
    same_shape(who, (*lead, s, r), latent=latent)
    same_shape(who, (h, e, r), weight_k=weight_k)
    same_shape(who, (h, weight_v.shape[1], r), weight_v=weight_v)
    both_or_neither = (query_rope is None) == (key_rope is None)
    demand(who, both_or_neither, "both query_rope and key_rope, or neither", query_rope=query_rope, key_rope=key_rope)
    p = 0 if key_rope is None else key_rope.shape[-1]
    same_shape(who, (*lead, h, t, p), query_rope=query_rope)
    same_shape(who, (*lead, s, p), key_rope=key_rope)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, h, t, s), mask=mask)
    scale = 1 / math.sqrt(max(e + p, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)

    queries, keys = query @ weight_k, latent                                # (..., H, T, R), (..., S, R)
    if query_rope is not None:                                              # a ‖ b times c ‖ d is a · c + b · d
        queries, keys = np.concatenate([queries, query_rope], -1), np.concatenate([keys, key_rope], -1)
    mixed, mixed_backward = multi_query_attention(
        queries, keys, latent, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise
    )                                                                       # (..., H, T, R)
    y = mixed @ weight_v.swapaxes(-1, -2)                                   # (..., H, T, W)

    def backward(dy):
        # The latent is read three times, as keys and as values here and by all heads there; multi_query_attention sums over the heads.
        dqueries, dkeys, dlatent, _ = mixed_backward(dy @ weight_v)
        dabsorbed, dquery_rope = dqueries[..., :r], dqueries[..., r:]
        dlatent = dlatent + dkeys[..., :r]
        dquery = dabsorbed @ weight_k.swapaxes(-1, -2)
        dweight_k, dweight_v = _over_tokens(query, dabsorbed), _over_tokens(dy, mixed)
        if query_rope is None:
            return dquery, dlatent, dweight_k, dweight_v, None, None
        return dquery, dlatent, dweight_k, dweight_v, dquery_rope, dkeys[..., r:]

    return y, backward


def _over_tokens(x: NDArray, y: NDArray) -> NDArray:
    """x (..., H, T, A), y (..., H, T, B) -> (H, A, B): for every head xᵀ y, summed over all tokens of all sequences."""
    x, y = (np.moveaxis(z, -3, 0).reshape(z.shape[-3], math.prod(z.shape[:-3]) * z.shape[-2], z.shape[-1]) for z in (x, y))
    return x.swapaxes(-1, -2) @ y
