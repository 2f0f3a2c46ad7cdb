"""Epsilon and eta sampling: only tokens above a fixed probability, or one that follows the entropy (Hewitt, Manning & Liang 2022,
arXiv:2210.15191)."""

import math

import torch
from torch import Tensor

from byhand.checks import demand, in_range, size
from torch_impl.decode._rows import best, largest, widened


@torch.no_grad()
def keep_epsilon(logits: Tensor, *, epsilon: float, minimum: int = 1) -> Tensor:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ ε,  −∞ elsewhere.

    logits (..., V) -> y (..., V).
    """
    log_p = _checked("keep_epsilon", logits, epsilon, minimum)
    return torch.where((log_p >= math.log(epsilon)) | best(logits, minimum), logits, -torch.inf)


@torch.no_grad()
def keep_eta(logits: Tensor, *, epsilon: float, minimum: int = 1) -> Tensor:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ min(ε, √ε · exp(−H)),  −∞ elsewhere;  H is the entropy of softmax(logits).

    logits (..., V) -> y (..., V).
    """
    log_p = _checked("keep_eta", logits, epsilon, minimum)
    entropy = -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(-1, keepdim=True)
    log_eta = (0.5 * math.log(epsilon) - entropy).clamp(max=math.log(epsilon))
    return torch.where((log_p >= log_eta) | best(logits, minimum), logits, -torch.inf)


def _checked(function: str, logits: Tensor, epsilon: float, minimum: int) -> Tensor:
    """log softmax(logits)."""
    in_range(function, 0, 1, epsilon=epsilon)
    demand(function, 0 < epsilon < 1, "0 < epsilon < 1", epsilon=epsilon)
    size(function, minimum=minimum)
    largest(function, logits)
    return widened(logits).log_softmax(-1)
