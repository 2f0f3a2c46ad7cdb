"""Min-p: only tokens that are at least p times as probable as the best (Nguyen et al. 2024, arXiv:2407.01082)."""

import math

import torch
from torch import Tensor

from byhand.checks import in_range, size
from torch_impl.decode._rows import best, largest, widened


@torch.no_grad()
def keep_min_p(logits: Tensor, *, p: float, minimum: int = 1) -> Tensor:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ p · max softmax(logits),  −∞ elsewhere.

    logits (..., V) -> y (..., V).
    """
    in_range("keep_min_p", 0, 1, p=p)
    size("keep_min_p", minimum=minimum)
    top = largest("keep_min_p", logits)
    keep = logits >= widened(top) + (math.log(p) if p else -math.inf)
    if minimum > 1:
        keep |= best(logits, minimum)
    return torch.where(keep, logits, -torch.inf)
