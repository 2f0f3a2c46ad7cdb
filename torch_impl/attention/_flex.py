"""PyTorch's FlexAttention for the patterns of this room: a pattern is a function of two positions; blocks that it empties are skipped."""

import functools
import warnings
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
    mask = create_block_mask(mask_mod, None, None, t, s, device=query.device)
    options = dict(score_mod=None if soft_cap is None else score_mod, block_mask=mask, scale=scale)
    q, k, v = (x.reshape(-1, 1, *x.shape[-2:]) for x in (query, key, value))
    if query.is_cuda:  # pragma: no cuda
        return _compiled()(q, k, v, **options).reshape(*lead, t, w)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex_attention(q.detach(), k.detach(), v.detach(), **options).reshape(*lead, t, w)


def demand_flex(who: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Fail where FlexAttention cannot: gradients on the CPU; float64 and narrow heads on CUDA."""
    device, differentiated = str(query.device), torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    demand(who, query.is_cuda or not differentiated, "CUDA, or no gradients, for kernel 'flex'", device=device)
    narrow = min(query.shape[-1], value.shape[-1]) < 16
    fits = not query.is_cuda or not (narrow or query.dtype == torch.float64)
    demand(who, fits, "widths of at least 16, and no float64, for kernel 'flex' on CUDA", query=query, value=value)


@functools.cache
def _compiled() -> Any:  # pragma: no cuda
    return torch.compile(flex_attention, dynamic=False)
