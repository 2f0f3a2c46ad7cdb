"""Temperature: how sharp a distribution tokens are drawn from (Ackley, Hinton & Sejnowski 1985)."""

import torch
from torch import Tensor

from byhand.checks import not_negative
from torch_impl.decode._rows import largest, widened


@torch.no_grad()
def temperature(logits: Tensor, *, temperature: float) -> Tensor:
    """yᵢ = logitsᵢ / T;  for T = 0, the limit, −∞ everywhere but at the largest logit, of equal ones at the lowest id.

    logits (..., V) -> y (..., V).
    """
    not_negative("temperature", temperature=temperature)
    top = largest("temperature", logits)
    if temperature == 0:
        top = logits.max(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter_(-1, top.indices, top.values)
    wide = widened(logits)
    temperature = max(temperature, torch.finfo(wide.dtype).tiny)
    fits = (widened(top) / temperature).to(logits.dtype).isfinite()  # a row that does not fit is moved to its largest
    return ((wide if bool(fits.all()) else torch.where(fits, wide, wide - top)) / temperature).to(logits.dtype)
