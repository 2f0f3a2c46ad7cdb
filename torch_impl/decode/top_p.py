"""Top-p or nucleus: only the fewest tokens that hold a share p of the probability (Holtzman et al. 2020, arXiv:1904.09751)."""

import torch
from torch import Tensor

from byhand.checks import demand, in_range, size
from torch_impl.decode._rows import first_of_equals, largest, widened


@torch.no_grad()
def keep_top_p(logits: Tensor, *, p: float, minimum: int = 1) -> Tensor:
    """yᵢ = logitsᵢ for the fewest most probable tokens with Σ softmax(logits) ≥ p,  −∞ for all others;  of equal logits the lower ids.

    logits (..., V) -> y (..., V).
    """
    in_range("keep_top_p", 0, 1, p=p)
    demand("keep_top_p", p > 0, "p > 0", p=p)
    size("keep_top_p", minimum=minimum)
    top = largest("keep_top_p", logits)
    if p == 1:
        return logits.clone()
    rising = logits.sort(-1).values
    mass = (widened(rising) - top).exp().cumsum(-1, dtype=torch.float64)
    dropped = (mass <= (1 - p) * mass[..., -1:]).sum(-1, keepdim=True).clamp(max=max(logits.shape[-1] - int(minimum), 0))
    return torch.where(first_of_equals(logits, rising.gather(-1, dropped), logits.shape[-1] - dropped), logits, -torch.inf)
