"""Attention within a window around every query (Beltagy, Peters & Cohan 2020, arXiv:2004.05150; Mistral 7B, arXiv:2310.06825)."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, floats, in_range, positive, same_shape
from byhand.checks import window as demand_window
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
    demand_window(who, window=window)
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

    strips = _cut(query, key, value, left, right, s - t)
    distance = strips.keys_at - strips.places
    allowed = (-left <= distance) & (distance <= right) & (0 <= strips.keys_at) & (strips.keys_at < s)  # (T/h, h, seen)
    if kernel == "sdpa" or (kernel == "auto" and soft_cap is None and not drops and query.dtype != torch.float64):
        blind = ~allowed.any(-1, keepdim=True)  # shown everything, because kernels differ in what they give for nothing, and then dropped
        q, k, v = (x.reshape(math.prod(lead), *x.shape[-3:]) for x in strips[:3])
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed | blind, scale=scale).masked_fill(blind, 0)
        return y.reshape(*lead, *y.shape[-3:]).flatten(-3, -2)[..., :t, :]

    scores = (strips.queries * scale) @ strips.keys.mT  # (..., T/h, h, seen)
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    scores = scores.masked_fill(~allowed, -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    if drops:
        kept = _bits(noise, (*lead, t, s), strips) >= round(dropout * 2**32)
        p = p * kept * (0.0 if dropout == 1 else 1 / (1 - dropout))
    return (p @ strips.values).flatten(-3, -2)[..., :t, :]


class _Strips(NamedTuple):
    """Neighbouring queries, h to a strip, and the run of keys that they see between them; places count along the keys."""

    queries: Tensor  # (..., T/h, h, E)
    keys: Tensor  # (..., T/h, seen, E)
    values: Tensor  # (..., T/h, seen, W)
    places: Tensor  # (T/h, h, 1): where the queries stand
    keys_at: Tensor  # (T/h, 1, seen): where the keys stand; before 0 and from S on they are zero, and to be hidden


def _cut(query: Tensor, key: Tensor, value: Tensor, left: int, right: int, offset: int) -> _Strips:
    """Strips of which every query sees at most `left` keys before its place and `right` after it; query 0 stands at `offset`."""
    t, s = query.shape[-2], key.shape[-2]
    h = min(_STRIP, max(t, 1))
    n = max(-(-t // h), 1)
    if n > 1:
        begin, seen = offset - left, left + h + right
    else:
        begin = min(max(offset - left, 0), s)
        seen = max(min(offset + h + right, s) - begin, 0)
    end = begin + (n - 1) * h + seen
    queries = F.pad(query, (0, 0, 0, n * h - t)).unflatten(-2, (n, h))
    keys, values = (F.pad(x, (0, 0, -begin, end - s)).unfold(-2, seen, h).mT for x in (key, value))
    starts = torch.arange(n, device=query.device)[:, None, None] * h
    rows, columns = (torch.arange(count, device=query.device) for count in (h, seen))
    return _Strips(queries, keys, values, starts + offset + rows[:, None], starts + begin + columns)


def _bits(noise: Noise, shape: tuple[int, ...], strips: _Strips) -> Tensor:
    """(..., T/h, h, seen) int64: of the random bits of the dense table (..., T, S), those of the strips; 0 outside the table."""
    *lead, t, s = shape
    n, h, seen = *strips.queries.shape[-3:-1], strips.keys.shape[-2]
    found = []
    for i, first in enumerate(strips.keys_at[:, 0, 0].tolist() if seen else [0] * n):
        rows, keys = (i * h, min((i + 1) * h, t)), (min(max(first, 0), s), min(max(first + seen, 0), s))
        bits = random_bits(noise, shape, part=(*((0, m) for m in lead), rows, keys), device=strips.keys.device)
        outside = min(max(-first, 0), seen)
        found.append(F.pad(bits.long(), (outside, seen - outside - bits.shape[-1], 0, h - bits.shape[-2])))
    return torch.stack(found, -3)
