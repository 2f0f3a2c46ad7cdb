"""Softmax and cross-entropy fused."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, ids_below, integers, positive, same_shape


def softmax_cross_entropy(logits: Tensor, *, targets: Tensor, ignore_index: int = -100, normalizer: float | None = None) -> Tensor:
    """loss = −Σ log p_t / M,  with  p = softmax(logits),  t the token's target and M the number of tokens that count.

    logits (..., V), targets (...,) -> ().  `normalizer` takes the place of M.
    """
    floats("softmax_cross_entropy", logits=logits)
    at_least_rank("softmax_cross_entropy", 1, logits=logits)
    v = logits.shape[-1]
    demand("softmax_cross_entropy", v > 0, "logits of at least one class", logits=logits)
    integers("softmax_cross_entropy", targets=targets)
    same_shape("softmax_cross_entropy", logits.shape[:-1], targets=targets)
    targets = targets.long().reshape(-1)
    counted = targets != ignore_index
    ids_below("softmax_cross_entropy", v, targets=torch.where(counted, targets, 0))
    if normalizer is not None:
        positive("softmax_cross_entropy", normalizer=normalizer)
    losses = F.cross_entropy(logits.reshape(targets.numel(), v), targets, ignore_index=ignore_index, reduction="none")
    wide = torch.promote_types(logits.dtype, torch.float32)  # a float16 sum over many tokens overflows, torch's own mean too
    return (losses.sum(dtype=wide) / (normalizer or counted.sum())).to(logits.dtype)
