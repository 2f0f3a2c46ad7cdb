"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, section 2.1): keys and values that are never built."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, exact_rank, floats, in_range, positive, same_shape
from byhand.noise import Noise
from torch_impl.attention.grouped_query import multi_query_attention
from torch_impl.attention.scaled_dot_product import Kernel


def latent_attention(
    query: Tensor,
    latent: Tensor,
    weight_k: Tensor,
    weight_v: Tensor,
    query_rope: Tensor | None = None,
    key_rope: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y_h = dropout(P_h) · latent · weight_v_hᵀ,  P_h = softmax(cap(scale · (query_h · weight_k_h · latentᵀ + query_rope_h · key_ropeᵀ))).

    query (..., H, T, E), latent (..., S, R), weight_k (H, E, R), weight_v (H, W, R), query_rope (..., H, T, P), key_rope (..., S, P), mask
    broadcast to (..., H, T, S) -> y (..., H, T, W). The projections are absorbed; what is left is multi-query attention over the latents,
    whose kernels these are.
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
    choice(who, ("auto", "math", "sdpa"), kernel=kernel)
    fits = soft_cap is None and (noise is None or dropout == 0)
    demand(who, fits or kernel != "sdpa", "kernel 'math' or 'auto' with a soft cap or dropout", kernel=kernel)

    queries, keys = query @ weight_k, latent  # (..., H, T, R), (..., S, R)
    if query_rope is not None:
        queries, keys = torch.cat((queries, query_rope), -1), torch.cat((keys, key_rope), -1)
    mixed = multi_query_attention(
        queries, keys, latent, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise, kernel=kernel
    )
    return mixed @ weight_v.mT
