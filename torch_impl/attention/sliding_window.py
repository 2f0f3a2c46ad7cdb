"""Attention within a window around every query (Beltagy, Peters & Cohan 2020, arXiv:2004.05150; Mistral 7B, arXiv:2310.06825)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand import checks
from byhand.checks import at_least_rank, choice, demand, floats, in_range, positive, same_shape
from byhand.noise import Noise
from torch_impl.attention._flex import demand_flex, flex
from torch_impl.ops.random_bits import random_bits

Kernel = Literal["auto", "math", "sdpa", "flex"]

_STRIP = 64


def sliding_window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: tuple[int | None, int | None],
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys s with  i − left ≤ s ≤ i + right.

    Query t stands at i = t + S − T among the keys.

    query (..., T, E), key (..., S, E), value (..., S, W) -> y (..., T, W). A query that sees nothing gives y = 0 and passes no gradient.
    Strips of neighbouring queries meet the keys that they see between them, so that time and memory are linear in T.

    `kernel` is ``"math"`` (strips, written out), ``"sdpa"`` (strips through PyTorch's fused kernels, which know neither a soft cap nor our
    dropout masks: a ValueError), ``"flex"`` (FlexAttention, compiled for CUDA; it does not know our dropout masks, and has no gradients on
    a CPU: a ValueError) or ``"auto"`` (sdpa where it can; in float64, which is for checking, math).
    """
    who = "sliding_window_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    checks.window(who, window=window)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)
    choice(who, ("auto", "math", "sdpa", "flex"), kernel=kernel)
    drops = noise is not None and dropout > 0
    demand(who, not drops or kernel in ("auto", "math"), "kernel 'math' or 'auto' with dropout", kernel=kernel)
    demand(who, soft_cap is None or kernel != "sdpa", "kernel 'math', 'flex' or 'auto' with a soft cap", kernel=kernel)

    left, right = window[0], 0 if causal else window[1]
    left, right = s if left is None else min(left, s), t if right is None else min(right, t)
    if kernel == "flex":
        demand_flex(who, query, key, value)
        return flex(query, key, value, sees=lambda a, b: (b - a <= right + s - t) & (b - a >= s - t - left), scale=scale, soft_cap=soft_cap)

    # Queries in strips, keys and values in the runs that the strips see; what lies outside the sequences is zero, and hidden.
    strips, seen = max(-(-t // _STRIP), 1), left + _STRIP + right
    before = left - (s - t)  # of the first strip's run, so much comes before the first key; if negative, so many keys are seen by nobody
    after = strips * _STRIP + left + right - before - s
    queries = F.pad(query, (0, 0, 0, strips * _STRIP - t)).unflatten(-2, (strips, _STRIP))  # (..., T/h, h, E)
    keys, values = (F.pad(x, (0, 0, before, after)).unfold(-2, seen, _STRIP).mT for x in (key, value))  # (..., T/h, seen, E or W)
    allowed = _band(strips, left, right, before, s, query.device)
    if kernel == "sdpa" or (kernel == "auto" and soft_cap is None and not drops and query.dtype != torch.float64):
        blind = ~allowed.any(-1, keepdim=True)  # shown everything, because kernels differ in what they give for nothing, and then dropped
        n = math.prod(lead)
        q, k, v = (x.reshape(n, *x.shape[-3:]) for x in (queries, keys, values))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed | blind, scale=scale).masked_fill(blind, 0)
        return y.reshape(*lead, strips * _STRIP, w)[..., :t, :]

    scores = (queries * scale) @ keys.mT  # (..., T/h, h, seen)
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    scores = scores.masked_fill(~allowed, -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    if drops:
        kept = _bits(noise, (*lead, t, s), strips, before, seen, query.device) >= round(dropout * 2**32)
        p = p * kept * (0.0 if dropout == 1 else 1 / (1 - dropout))
    return (p @ values).flatten(-3, -2)[..., :t, :]


def _band(strips: int, left: int, right: int, before: int, s: int, device: torch.device) -> Tensor:
    """(T/h, h, seen) booleans: the row sees the key."""
    row, column = torch.arange(_STRIP, device=device)[:, None], torch.arange(left + _STRIP + right, device=device)
    key = torch.arange(strips, device=device)[:, None, None] * _STRIP + column - before
    return (row <= column) & (column <= row + left + right) & (0 <= key) & (key < s)


def _bits(noise: Noise, shape: tuple[int, ...], strips: int, before: int, seen: int, device: torch.device) -> Tensor:
    """(..., T/h, h, seen) int64: of the random bits of the dense table (..., T, S), those of the band; 0 outside the table."""
    *lead, t, s = shape
    found = []
    for start in range(0, strips * _STRIP, _STRIP):
        first = start - before
        rows, keys = (start, min(start + _STRIP, t)), (min(max(first, 0), s), min(max(first + seen, 0), s))
        bits = random_bits(noise, shape, part=(*((0, n) for n in lead), rows, keys), device=device)
        outside = min(max(-first, 0), seen)
        found.append(F.pad(bits.long(), (outside, seen - outside - bits.shape[-1], 0, start + _STRIP - rows[1])))
    return torch.stack(found, -3)
