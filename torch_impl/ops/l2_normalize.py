"""Scaling vectors to unit length, for cosine similarities and contrastive losses."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, axis_of, floats, positive


def l2_normalize(x: Tensor, *, axis: int = -1, eps: float = 1e-12) -> Tensor:
    """y = x / max(‖x‖, ε),  with  ‖x‖ = √(Σ x²)  along one axis.  x -> y, both (..., D, ...)."""
    floats("l2_normalize", x=x)
    at_least_rank("l2_normalize", 1, x=x)
    axis = axis_of("l2_normalize", x.ndim, axis)
    positive("l2_normalize", eps=eps)
    return F.normalize(x, dim=axis, eps=eps)
