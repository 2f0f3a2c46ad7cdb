"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from torch_impl.ops.dropout import dropout as random_dropout

Kernel = Literal["auto", "math", "sdpa"]


def scaled_dot_product(
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
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) + bias)  over the keys that a query may see.

    query (..., T, E), key (..., S, E), value (..., S, W), bias and mask broadcast to (..., T, S) -> y (..., T, W). A query that
    sees nothing gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` (written out below), ``"sdpa"`` (PyTorch's fused kernels, which know neither a soft cap nor our dropout
    masks: a ValueError) or ``"auto"`` (sdpa where it can; in float64, which is for checking, math).
    """
    who = "scaled_dot_product"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), bias=bias, mask=mask)
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
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    return random_dropout(p, p=dropout, noise=noise) @ value


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    t, s = query.shape[-2], key.shape[-2]
    if query.ndim < 4:                                                 # the fast kernels take (B, H, ·, ·) and nothing else
        ones = (None,) * (4 - query.ndim)
        y = _sdpa(query[ones], key[ones], value[ones], bias, mask, causal, scale)
        return y.reshape(y.shape[len(ones):])
    # PyTorch's own causal flag aligns the first query with the first key, and multiplies its −inf by the scale.
    if bias is None and mask is None and (not causal or (t == s and scale > 0)):
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)

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
    # What kernels give for a query that sees nothing differs: it is shown everything, and what comes out is dropped.
    allowed = allowed.expand(torch.broadcast_shapes(allowed.shape, (t, s)))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scale).masked_fill(blind, 0)


def _triangle(t: int, s: int, device: torch.device) -> Tensor:
    """(T, S) booleans: query t sees keys up to t + S − T."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)
