"""Top-k: only the k most probable tokens may be drawn (Fan, Lewis & Dauphin 2018, arXiv:1805.04833)."""

import torch
from torch import Tensor

from byhand.checks import size
from torch_impl.decode._rows import best, largest


@torch.no_grad()
def keep_top_k(logits: Tensor, *, k: int) -> Tensor:
    """yᵢ = logitsᵢ for the k largest,  −∞ for all others;  exactly k are kept, of equal logits the lower ids.

    logits (..., V) -> y (..., V).
    """
    size("keep_top_k", k=k)
    largest("keep_top_k", logits)
    return torch.where(best(logits, k), logits, -torch.inf)
