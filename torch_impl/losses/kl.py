"""Kullback–Leibler divergences between two distributions that are given by their logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, booleans, demand, floats, same_shape


def kl_forward(logits: Tensor, target_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """loss = mean KL(p ‖ q) over the positions that count,  with  p = softmax(target_logits),  q = softmax(logits).

    logits (..., V), target_logits (..., V), mask (...,) or None -> ().
    """
    _check("kl_forward", logits, target_logits, mask)
    return _kl(logits, target_logits, mask)


def kl_reverse(logits: Tensor, target_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """loss = mean KL(q ‖ p) over the positions that count;  p, q and shapes as in `kl_forward`."""
    _check("kl_reverse", logits, target_logits, mask)
    return _kl(target_logits, logits, mask)


def kl_symmetric(logits: Tensor, target_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """loss = ½ mean (KL(p ‖ q) + KL(q ‖ p)) over the positions that count;  p, q and shapes as in `kl_forward`."""
    _check("kl_symmetric", logits, target_logits, mask)
    return (_kl(logits, target_logits, mask) + _kl(target_logits, logits, mask)) / 2


def _kl(logits: Tensor, target_logits: Tensor, mask: Tensor | None) -> Tensor:
    terms = F.kl_div(F.log_softmax(logits, -1), F.log_softmax(target_logits, -1), reduction="none", log_target=True)
    kl = terms.sum(-1)
    if mask is None:
        return kl.mean()
    wide = torch.promote_types(logits.dtype, torch.float32)  # a float16 sum over many positions would overflow
    return (torch.where(mask, kl, 0).sum(dtype=wide) / mask.sum()).to(logits.dtype)


def _check(function: str, logits: Tensor, target_logits: Tensor, mask: Tensor | None) -> None:
    floats(function, logits=logits, target_logits=target_logits)
    at_least_rank(function, 1, logits=logits)
    demand(function, logits.shape[-1] > 0, "logits of at least one class", logits=logits)
    same_shape(function, logits.shape, target_logits=target_logits)
    booleans(function, mask=mask)
    same_shape(function, logits.shape[:-1], mask=mask)
