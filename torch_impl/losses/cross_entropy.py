"""Cross-entropy of class ids against logits, with every option that training uses."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, floats, ids_below, in_range, integers, not_negative, positive, same_shape


def cross_entropy(
    logits: Tensor,
    *,
    targets: Tensor,
    class_weights: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum", "none"] = "mean",
    normalizer: float | None = None,
    label_smoothing: float = 0.0,
    smoothing: Literal["all", "others"] = "all",
    z_loss: float = 0.0,
) -> Tensor:
    """loss = −Σ_c q_c · w_c · log p_c + ζ · lse²,  with q the smoothed target and lse = log Σ_c exp(logits_c),  for each token.

    logits (..., V), targets (...,), class_weights (V,) or None -> () or, with reduction "none", (...,).  What
    `torch.nn.functional.cross_entropy` computes in the same two kernels, and beside it the ε/(V − 1) smoothing, the z-loss and a given
    normalizer.
    """
    floats("cross_entropy", logits=logits, class_weights=class_weights)
    at_least_rank("cross_entropy", 1, logits=logits)
    v = logits.shape[-1]
    demand("cross_entropy", v > 0, "logits of at least one class", logits=logits)
    integers("cross_entropy", targets=targets)
    same_shape("cross_entropy", logits.shape[:-1], targets=targets)
    same_shape("cross_entropy", (v,), class_weights=class_weights)
    targets = targets.long()
    counted = targets != ignore_index
    targets = torch.where(counted, targets, 0)
    ids_below("cross_entropy", v, targets=targets)
    choice("cross_entropy", ("mean", "sum", "none"), reduction=reduction)
    in_range("cross_entropy", 0, 1, label_smoothing=label_smoothing)
    choice("cross_entropy", ("all", "others"), smoothing=smoothing)
    not_negative("cross_entropy", z_loss=z_loss)
    if normalizer is not None:
        positive("cross_entropy", normalizer=normalizer)
        demand("cross_entropy", reduction == "mean", "reduction='mean' beside a normalizer", reduction=reduction)

    share = label_smoothing / (v if smoothing == "all" else max(v - 1, 1))
    sharp = 1 - label_smoothing - (0 if smoothing == "all" else share)
    w = logits.new_ones(v) if class_weights is None else class_weights.detach()
    logp = F.log_softmax(logits, -1)
    loss = -sharp * w[targets] * logp.gather(-1, targets[..., None])[..., 0]
    if label_smoothing:
        loss = loss - share * (logp @ w)
    if z_loss:
        loss = loss + z_loss * torch.logsumexp(logits, -1) ** 2
    loss = torch.where(counted, loss, 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    wide = torch.promote_types(logits.dtype, torch.float32)  # a float16 sum over many tokens would overflow
    return (loss.sum(dtype=wide) / (normalizer or (w[targets] * counted).sum(dtype=wide))).to(logits.dtype)
