"""Attention to the neighbours and, beyond them, to every n-th key (Child et al. 2019, arXiv:1904.10509)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, choice, floats, in_range, positive, same_shape, size
from torch_impl.attention._flex import demand_flex, flex
from torch_impl.attention.sliding_window import _cut

Kernel = Literal["auto", "math", "flex"]


def strided_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    stride: int,
    local: int = 0,
    reach: int | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = P · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys that are near, or whole strides away.

    query (..., T, E), key (..., S, E), value (..., S, W) -> y (..., T, W). Query t, at place i = t + S − T, sees key s if
    |i − s| ≤ local, or if i − s is a multiple of stride and |i − s| ≤ reach. A query that sees nothing gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` or ``"auto"`` (a band of neighbours and a band of every residue class, one softmax over both: time and memory
    grow with T · (local + S / stride)) or ``"flex"`` (FlexAttention: compiled for CUDA; on a CPU it has no gradients: a ValueError. It
    skips blocks of keys that are seen nowhere, and a stride shorter than a block leaves none).
    """
    who = "strided_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, stride=stride)
    size(who, at_least=0, local=local)
    if reach is not None:
        size(who, at_least=0, reach=reach)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    choice(who, ("auto", "math", "flex"), kernel=kernel)

    longest, offset = max(t, s, 1), s - t
    stride, local, reach = min(stride, longest), min(local, longest), longest if reach is None else min(reach, longest)

    def sees(steps: Tensor) -> Tensor:
        near_or_far = (steps.abs() <= local) | ((steps % stride == 0) & (steps.abs() <= reach))
        return near_or_far & (steps <= 0) if causal else near_or_far

    if kernel == "flex":
        demand_flex(who, query, key, value)
        return flex(query, key, value, sees=lambda a, b: sees(b - a - offset), scale=scale, soft_cap=soft_cap)

    # Classes by residue: position t of the queries is row t // stride of class t % stride, and so is position s + shift of the keys.
    shift = -offset % stride

    def classes(x: Tensor, before: int) -> Tensor:  # (..., N, D) -> (..., stride, N / stride, D)
        after = -(x.shape[-2] + before) % stride
        return F.pad(x, (0, 0, before, after)).unflatten(-2, (-1, stride)).transpose(-2, -3)

    def unclassed(x: Tensor) -> Tensor:
        return x.transpose(-2, -3).flatten(-3, -2)

    near = _cut(query, key, value, local, 0 if causal else local, offset)
    steps = reach // stride
    far = _cut(classes(query, 0), classes(key, shift), classes(value, shift), steps, 0 if causal else steps, (offset + shift) // stride)

    distance = near.keys_at - near.places
    near_hidden = ~sees(distance) | (distance.abs() > local) | (near.keys_at < 0) | (near.keys_at >= s)
    residue = torch.arange(stride, device=query.device)[:, None, None, None]
    keys_at, distance = far.keys_at * stride + residue - shift, (far.keys_at - far.places) * stride
    far_hidden = ~sees(distance) | (distance.abs() <= local) | (keys_at < 0) | (keys_at >= s)  # (stride, n, h, seen)

    def scores_of(part, hidden: Tensor) -> Tensor:
        scores = (part.queries * scale) @ part.keys.mT
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        return scores.masked_fill(hidden, -math.inf).flatten(-3, -2)

    near_scores, far_scores = scores_of(near, near_hidden)[..., :t, :], unclassed(scores_of(far, far_hidden))[..., :t, :]
    scores = torch.cat((near_scores, far_scores), -1)  # (..., T, seen near + seen far)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)
    p_near, p_far = p.split((near_scores.shape[-1], far_scores.shape[-1]), -1)

    n, h = near.queries.shape[-3:-1]
    y = (F.pad(p_near, (0, 0, 0, n * h - t)).unflatten(-2, (n, h)) @ near.values).flatten(-3, -2)[..., :t, :]
    n, h = far.queries.shape[-3:-1]
    p_far = F.pad(p_far, (0, 0, 0, n * h * stride - t)).unflatten(-2, (n * h, stride)).transpose(-2, -3)
    return y + unclassed((p_far.unflatten(-2, (n, h)) @ far.values).flatten(-3, -2))[..., :t, :]
