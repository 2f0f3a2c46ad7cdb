"""Binary cross-entropy of probabilities (labels) against logits."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import broadcastable, choice, floats, same_shape


def bce_with_logits(
    logits: Tensor, targets: Tensor, *, pos_weight: Tensor | None = None, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    """loss = −w · t · log σ(x) − (1 − t) · log(1 − σ(x)),  with  x the logit and t the target of each entry.

    logits (...,), targets (...,), pos_weight broadcast to them or None -> () or, with reduction "none", (...,).
    """
    floats("bce_with_logits", logits=logits, targets=targets, pos_weight=pos_weight)
    same_shape("bce_with_logits", logits.shape, targets=targets)
    broadcastable("bce_with_logits", logits.shape, pos_weight=pos_weight)
    choice("bce_with_logits", ("mean", "sum", "none"), reduction=reduction)
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction=reduction)
