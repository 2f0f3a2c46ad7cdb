"""Attention whose query heads share keys and values: in groups (Ainslie et al. 2023, arXiv:2305.13245), or all of them (Shazeer 2019,
arXiv:1911.02150)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from torch_impl.attention.scaled_dot_product import Kernel, _triangle
from torch_impl.ops.dropout import dropout as random_dropout


def grouped_query_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y_h = dropout(P_h) · value_k,  with  P_h = softmax(cap(scale · query_h · key_kᵀ) + bias_h)  and  k = ⌊h · K / H⌋.

    query (..., H, T, E), key (..., K, S, E), value (..., K, S, W), bias and mask broadcast to (..., H, T, S) -> y (..., H, T, W). A query
    that sees nothing gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` (written out below), ``"sdpa"`` (PyTorch's fused kernels with enable_gqa, which know neither a soft cap nor our
    dropout masks: a ValueError) or ``"auto"`` (sdpa where it can; in float64, which is for checking, math).
    """
    who = "grouped_query_attention"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 3, query=query, key=key, value=value)
    *lead, h, _, e = query.shape
    k, s = key.shape[-3:-1]
    demand(who, h > 0 and k > 0 and h % k == 0, "query heads that are a multiple of the heads of key", query=query, key=key)
    same_shape(who, (*lead, k, s, e), key=key)
    same_shape(who, (*lead, k, s, value.shape[-1]), value=value)
    return _attend(who, query, key, value, bias, mask, causal, scale, soft_cap, dropout, noise, kernel)


def multi_query_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y_h = dropout(P_h) · value,  with  P_h = softmax(cap(scale · query_h · keyᵀ) + bias_h):  all heads read the same keys and values.

    query (..., H, T, E), key (..., S, E), value (..., S, W) -> y (..., H, T, W); the rest as in `grouped_query_attention`.
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
    return _attend(who, query, key.unsqueeze(-3), value.unsqueeze(-3), bias, mask, causal, scale, soft_cap, dropout, noise, kernel)


def _attend(
    who: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, causal: bool, scale: float | None,
    soft_cap: float | None, dropout: float, noise: Noise | None, kernel: Kernel,
) -> Tensor:
    *lead, h, t, e = query.shape
    k, s = key.shape[-3:-1]
    booleans(who, mask=mask)
    broadcastable(who, (*lead, h, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)
    choice(who, ("auto", "math", "sdpa"), kernel=kernel)

    drops = noise is not None and dropout > 0
    fits = soft_cap is None and not drops
    demand(who, fits or kernel != "sdpa", "kernel 'math' or 'auto' with a soft cap or dropout", kernel=kernel)
    if kernel == "sdpa" or (kernel == "auto" and fits and query.dtype != torch.float64):
        return _sdpa(query, key, value, bias, mask, causal, scale)

    folded = (*lead, k, h // k * t)  # queries of heads that share keys are so many more queries of one head
    scores = ((query * scale).reshape(*folded, e) @ key.mT).reshape(*lead, h, t, s)
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if causal:
        scores = scores.masked_fill(~_triangle(t, s, query.device), -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    p = random_dropout(p, p=dropout, noise=noise)
    return (p.reshape(*folded, s) @ value).reshape(*lead, h, t, value.shape[-1])


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """As in scaled_dot_product, with enable_gqa: a kernel that can reads each head of keys for its whole group, and repeats nothing."""
    t, s = query.shape[-2], key.shape[-2]
    if bias is None and mask is None and (not causal or (t == s and scale > 0)):
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=True)

    if causal:
        triangle = _triangle(t, s, query.device)
        mask = triangle if mask is None else mask & triangle
    if bias is None:
        assert mask is not None
        blind = ~mask.any(-1, keepdim=True)
        allowed = mask | blind
    else:
        hidden = bias if mask is None else torch.where(mask, bias, -math.inf)
        blind = (hidden == -math.inf).all(-1, keepdim=True)
        allowed = hidden.masked_fill(blind, 0)
    allowed = allowed.expand(torch.broadcast_shapes(allowed.shape, (t, s)))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scale, enable_gqa=True).masked_fill(blind, 0)
