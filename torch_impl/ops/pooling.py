"""Pooling: what stands at the tokens of a text made into one vector (Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084)."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, floats, same_shape


def mean_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = Σₜ xₜ / n  over the n tokens that the mask keeps.  x (..., T, D), mask (..., T) -> y (..., D), 0 where there is no token."""
    mask = _checked("mean_pool", x, mask)
    return _sum(x, mask) / _count(mask)


def mean_sqrt_len_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = Σₜ xₜ / √n  over the n tokens that the mask keeps.  x (..., T, D), mask (..., T) -> y (..., D), 0 where there is no token."""
    mask = _checked("mean_sqrt_len_pool", x, mask)
    return _sum(x, mask) / _count(mask).to(x.dtype).sqrt()


def weighted_mean_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = Σₜ pₜ xₜ / Σₜ pₜ  over the tokens that the mask keeps;  pₜ = 1, 2, 3 … from the first of them on, places it drops counted.

    x (..., T, D), mask (..., T) -> y (..., D), 0 where there is no token.
    """
    mask = _checked("weighted_mean_pool", x, mask)
    place = (mask.cumsum(-1) > 0).cumsum(-1) * mask
    return _sum(x * place[..., None], mask) / place.sum(-1, keepdim=True).clamp(min=1)


def cls_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = xₜ  of the first token that the mask keeps.  x (..., T, D), mask (..., T) -> y (..., D), 0 where there is no token."""
    mask = _checked("cls_pool", x, mask)
    return _sum(x, mask & (mask.cumsum(-1) == 1))


def last_token_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = xₜ  of the last token that the mask keeps.  x (..., T, D), mask (..., T) -> y (..., D), 0 where there is no token."""
    mask = _checked("last_token_pool", x, mask)
    so_far = mask.cumsum(-1)
    return _sum(x, mask & (so_far == so_far[..., -1:]))


def max_pool(x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """y = maxₜ xₜ,  each entry apart, over the tokens that the mask keeps.  x (..., T, D), mask (..., T) -> y (..., D), 0 without a token.

    Where several tokens share the largest entry, the gradient is the first one's.
    """
    mask = _checked("max_pool", x, mask)
    if x.shape[-2] == 0:
        return _sum(x, mask)
    largest = torch.where(mask[..., None], x, -torch.inf).max(-2).values
    return torch.where(mask.any(-1, keepdim=True), largest, 0)


def _checked(name: str, x: Tensor, mask: Tensor | None) -> Tensor:
    floats(name, x=x)
    at_least_rank(name, 2, x=x)
    booleans(name, mask=mask)
    same_shape(name, x.shape[:-1], mask=mask)
    return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask


def _count(mask: Tensor) -> Tensor:
    return mask.sum(-1, keepdim=True).clamp(min=1)


def _sum(x: Tensor, mask: Tensor) -> Tensor:
    """Σₜ xₜ  over the tokens that the mask keeps; NaN at the others is not seen."""
    return torch.where(mask[..., None], x, 0).sum(-2)
