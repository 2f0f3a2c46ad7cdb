"""Locally typical sampling: only tokens about as surprising as one must expect (Meister et al. 2022, arXiv:2202.00666)."""

import torch
from torch import Tensor

from byhand.checks import demand, in_range, size
from torch_impl.decode._rows import first_of_equals, largest, widened


@torch.no_grad()
def keep_typical(logits: Tensor, *, mass: float, minimum: int = 1) -> Tensor:
    """yᵢ = logitsᵢ for the fewest tokens of least |−log pᵢ − H| with Σ p ≥ mass,  −∞ for all others;  p = softmax(logits),
    H = −Σ p log p.

    logits (..., V) -> y (..., V).
    """
    in_range("keep_typical", 0, 1, mass=mass)
    demand("keep_typical", mass > 0, "mass > 0", mass=mass)
    size("keep_typical", minimum=minimum)
    largest("keep_typical", logits)
    if mass == 1:
        return logits.clone()
    log_p = widened(logits).log_softmax(-1)
    probability = log_p.exp()
    entropy = -(probability * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1, keepdim=True)
    near, order = (-(log_p + entropy).abs()).sort(-1, descending=True)
    held = probability.gather(-1, order).cumsum(-1, dtype=torch.float64)
    kept = ((held < mass * held[..., -1:]).sum(-1, keepdim=True) + 1).clamp(min=int(minimum)).clamp(max=logits.shape[-1])
    keep = first_of_equals(-(log_p + entropy).abs(), near.gather(-1, kept - 1), kept)
    return torch.where(keep, logits, -torch.inf)
