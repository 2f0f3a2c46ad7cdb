"""Root-mean-square normalization (Zhang & Sennrich 2019, arXiv:1910.07467)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, not_negative, same_shape


def rms_norm(x: Tensor, weight: Tensor | None = None, *, eps: float = 1e-6, unit_offset: bool = False) -> Tensor:
    """y = weight · x̂  (or (1 + weight) · x̂),  with  x̂ = x / √(mean(x²) + ε)  over the last axis.

    x (..., D), weight (D,) or None -> y (..., D).  float16 and bfloat16 are accumulated in float32: the fused kernel does so by
    itself, but 1 + weight would be rounded before it is used, so that form widens first.
    """
    floats("rms_norm", x=x, weight=weight)
    at_least_rank("rms_norm", 1, x=x)
    demand("rms_norm", x.shape[-1] > 0, "x with a last axis of at least one entry", x=x)
    same_shape("rms_norm", x.shape[-1:], weight=weight)
    not_negative("rms_norm", eps=eps)
    if weight is None or not unit_offset:
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    return F.rms_norm(x.to(wide), x.shape[-1:], weight.to(wide) + 1, eps).to(x.dtype)
