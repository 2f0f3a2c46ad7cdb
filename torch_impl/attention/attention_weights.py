"""The weights of scaled dot-product attention, to be drawn or read (Vaswani et al. 2017, arXiv:1706.03762, equation 1)."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, positive, same_shape
from torch_impl.attention.scaled_dot_product import _triangle


def attention_weights(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """P = softmax(cap(scale · query · keyᵀ) + bias)  over the keys that a query may see: what `scaled_dot_product` multiplies values by.

    query (..., T, E), key (..., S, E), bias and mask broadcast to (..., T, S) -> P (..., T, S). A query that sees nothing has a row of
    zeros. The fused kernels never hold P, so there is one way to compute it.
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

    scores = (query * scale) @ key.mT  # (..., T, S)
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if causal:
        scores = scores.masked_fill(~_triangle(t, s, query.device), -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
