"""A projection to the vocabulary and its cross-entropy, chunk by chunk, so that all logits together never exist; also where the
projection is not trained."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from byhand.checks import at_least_rank, demand, exact_rank, floats, ids_below, integers, positive, same_shape, size


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, *, targets: Tensor, ignore_index: int = -100, normalizer: float | None = None, chunk: int = 512
) -> Tensor:
    """loss = −Σ log p_t / M,  with  p = softmax(hidden @ weightᵀ),  t the token's target and M the number of tokens that count.

    hidden (..., D), weight (V, D), targets (...,) -> ().  The logits of `chunk` tokens at a time: the backward computes each chunk's
    again (`torch.utils.checkpoint`). Losses are summed in float32 at least.
    """
    return _chunked("linear_cross_entropy", hidden, weight, targets, ignore_index, normalizer, chunk)


def frozen_linear_cross_entropy(
    hidden: Tensor, *, weight: Tensor, targets: Tensor, ignore_index: int = -100, normalizer: float | None = None, chunk: int = 512
) -> Tensor:
    """As linear_cross_entropy, with a weight that is not trained.  hidden (..., D), weight (V, D), targets (...,) -> ()."""
    weight = weight.detach() if isinstance(weight, Tensor) else weight
    return _chunked("frozen_linear_cross_entropy", hidden, weight, targets, ignore_index, normalizer, chunk)


def _chunked(who: str, hidden: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, normalizer: float | None, chunk: int) -> Tensor:
    floats(who, hidden=hidden, weight=weight)
    at_least_rank(who, 1, hidden=hidden)
    exact_rank(who, 2, weight=weight)
    demand(who, hidden.shape[-1] == weight.shape[1], "hidden and weight of one width", hidden=hidden, weight=weight)
    demand(who, weight.shape[0] > 0, "weight of at least one class", weight=weight)
    integers(who, targets=targets)
    same_shape(who, hidden.shape[:-1], targets=targets)
    targets = targets.long().reshape(-1)
    counted = targets != ignore_index
    ids_below(who, len(weight), targets=torch.where(counted, targets, 0))
    if normalizer is not None:
        positive(who, normalizer=normalizer)
    size(who, chunk=chunk)

    wide = torch.promote_types(hidden.dtype, torch.float32)

    def summed(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight).to(wide), targets, ignore_index=ignore_index, reduction="sum")

    hidden = hidden.reshape(targets.numel(), weight.shape[1])
    parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    losses = [checkpoint(summed, h, weight, t, use_reentrant=False, preserve_rng_state=False) for h, t in parts]
    return (torch.stack(losses).sum() / (normalizer or counted.sum())).to(hidden.dtype)
