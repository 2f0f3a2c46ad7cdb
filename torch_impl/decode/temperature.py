"""Temperature: how sharp a distribution tokens are drawn from (Ackley, Hinton & Sejnowski 1985)."""

import torch
from torch import Tensor

from byhand.checks import not_negative
from torch_impl.decode._rows import largest


@torch.no_grad()
def temperature(logits: Tensor, *, temperature: float) -> Tensor:
    """yᵢ = logitsᵢ / T;  for T = 0, the limit, −∞ everywhere but at the largest logit, of equal ones at the lowest id.

    logits (..., V) -> y (..., V).
    """
    not_negative("temperature", temperature=temperature)
    largest("temperature", logits)
    if temperature == 0:
        top = logits.max(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter_(-1, top.indices, top.values)
    return logits / temperature
