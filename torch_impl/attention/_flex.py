"""PyTorch's FlexAttention for the patterns of this room: a pattern is a function of two positions; blocks that it empties are skipped."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from byhand.checks import demand


def flex(
    query: Tensor, key: Tensor, value: Tensor, *, sees: Callable[[Tensor, Tensor], Tensor], scale: float, soft_cap: float | None
) -> Tensor:
    """softmax(cap(scale · query · keyᵀ)) · value over the keys s with sees(t, s); a query that sees nothing gives 0.

    Compiled on CUDA. On a CPU it is run as it is, which is slow, dense, and has no backward: for looking at the pattern.
    """

    def mask_mod(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return sees(t, s)

    def score_mod(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return soft_cap * torch.tanh(score / soft_cap)

    *lead, t, e = query.shape
    s, w = value.shape[-2:]
    if 0 in (*lead, t, s, e, w):
        return query.new_zeros(*lead, t, w)
    make, attend = _kernels(query.device.type)
    mask = make(mask_mod, B=None, H=None, Q_LEN=t, KV_LEN=s, device=query.device)
    if not query.is_cuda:
        query, key, value = query.detach(), key.detach(), value.detach()
    q, k, v = (x.reshape(-1, 1, *x.shape[-2:]) for x in (query, key, value))
    y = attend(q, k, v, score_mod=None if soft_cap is None else score_mod, block_mask=mask, scale=scale)
    return y.reshape(*lead, t, w)


def demand_flex(who: str, *arrays: Tensor) -> None:
    """FlexAttention has a backward on CUDA alone."""
    differentiated = torch.is_grad_enabled() and any(array.requires_grad for array in arrays)
    demand(who, arrays[0].is_cuda or not differentiated, "CUDA, or no gradients, for kernel 'flex'", device=str(arrays[0].device))


@functools.cache
def _kernels(device: str) -> tuple[Any, Any]:
    return (torch.compile(create_block_mask), torch.compile(flex_attention)) if device == "cuda" else (create_block_mask, flex_attention)
