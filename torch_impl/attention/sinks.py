"""Attention sinks: one learned score per head that takes part in the softmax and brings no value (gpt-oss, OpenAI 2025,
arXiv:2508.10925; Xiao et al. 2023, arXiv:2309.17453, for why attention wants one)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from torch_impl.attention.scaled_dot_product import Kernel, _triangle
from torch_impl.ops.dropout import dropout as random_dropout


def sink_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor,
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
    """y = dropout(P) · value,  with  P_ts = exp(z_ts) / (exp(sink_h) + Σ_s exp(z_ts))  and  z = cap(scale · query · keyᵀ) + bias.

    query (..., H, T, E), key (..., K, S, E), value (..., K, S, W), sinks (H,), bias and mask broadcast to (..., H, T, S)
    -> y (..., H, T, W). A query that sees nothing but the sink gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` (written out below), ``"sdpa"`` (PyTorch's fused kernels, which know no sinks, but can be given them as one more
    key; they know neither a soft cap nor our dropout masks: a ValueError) or ``"auto"`` (sdpa where it can; in float64, which is for
    checking, math).
    """
    who = "sink_attention"
    demand(who, sinks is not None, "sinks as an array", sinks=sinks)
    floats(who, query=query, key=key, value=value, sinks=sinks, bias=bias)
    at_least_rank(who, 3, query=query, key=key, value=value)
    *lead, h, t, e = query.shape
    k, s, w = key.shape[-3], key.shape[-2], value.shape[-1]
    demand(who, h > 0 and k > 0 and h % k == 0, "query heads that are a multiple of the heads of key", query=query, key=key)
    same_shape(who, (*lead, k, s, e), key=key)
    same_shape(who, (*lead, k, s, w), value=value)
    same_shape(who, (h,), sinks=sinks)
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
        return _sdpa(query, key, value, sinks, bias, mask, causal, scale)

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
    scores = torch.cat([sinks[:, None, None].expand(*lead, h, t, 1), scores], -1)  # (..., H, T, 1 + S): the sink is one more key
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    p = random_dropout(p[..., 1:], p=dropout, noise=noise)
    return (p.reshape(*folded, s) @ value).reshape(*lead, h, t, w)


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor, bias: Tensor | None, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """The sink as one more key, in front of the others, with value 0: queries and keys get one more number, whose product is sink · 1 with
    the sink's key and sink · 0 with all others."""
    t, e = query.shape[-2:]
    s, w = value.shape[-2:]
    width = -(-max(e + 1, w) // 8) * 8  # the fused kernels want one width for all, a multiple of 8: zeros fill it up
    low = sinks.clamp(min=torch.finfo(sinks.dtype).min)  # −inf · 0 would be NaN; this is as good as never seen
    query = torch.cat([query * scale, low[:, None, None].expand(*query.shape[:-1], 1)], -1)
    sink_key = F.pad(key.new_ones(1), (e, 0)).expand(*key.shape[:-2], 1, e + 1)
    key = torch.cat([sink_key, F.pad(key, (0, 1))], -2)
    query, key = (F.pad(x, (0, width - e - 1)) for x in (query, key))
    value = F.pad(value, (0, width - w, 1, 0))
    if causal:
        triangle = _triangle(t, s, query.device)
        mask = triangle if mask is None else mask & triangle
    allowed = mask
    if bias is not None:
        allowed = bias if mask is None else torch.where(mask, bias, -math.inf)
    if allowed is not None:
        allowed = F.pad(allowed.expand(torch.broadcast_shapes(allowed.shape, (t, s))), (1, 0), value=bias is None)  # all see the sink
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=1.0, enable_gqa=True)[..., :w]
