"""The router of a mixture of experts: which experts see a token, and how much each one counts."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, floats, not_nan, positive, same_shape, size
from torch_impl.moe.top_k import top_k


class Routes(NamedTuple):
    """Where each token goes: weights (..., k), the scores of all experts (..., E), the chosen experts ids (..., k), best first."""

    weights: Tensor
    scores: Tensor
    ids: Tensor


def router(
    logits: Tensor,
    *,
    k: int,
    score: Literal["softmax", "sigmoid"] = "softmax",
    before: bool = True,
    renormalise: bool = False,
    scale: float = 1.0,
    by: Tensor | None = None,
    bias: Tensor | None = None,
    groups: int = 1,
    top_groups: int | None = None,
    group_score: Literal["max", "top2"] = "max",
) -> Routes:
    """weightsⱼ = scale · s[idsⱼ] / Σᵢ s[idsᵢ],  with  s = score(logits)  and  ids = the k experts with the largest s + bias.

    The sum is there with `renormalise` alone; without `before` the score is taken of the chosen logits only. A token chooses among the
    experts of its `top_groups` best of `groups` groups; `by` (..., E) stands in for the scores in choosing. logits (..., E), bias (E,) ->
    weights (..., k), scores (..., E), ids (..., k).

    Logits in half precision are routed in float32, and weights and scores stay float32.
    """
    floats("router", logits=logits)
    floats("router", by=by, bias=bias)
    at_least_rank("router", 1, logits=logits)
    e = logits.shape[-1]
    same_shape("router", logits.shape, by=by)
    same_shape("router", (e,), bias=bias)
    choice("router", ("softmax", "sigmoid"), score=score)
    choice("router", ("max", "top2"), group_score=group_score)
    positive("router", scale=scale)
    size("router", k=k, groups=groups)
    demand("router", e % groups == 0, "groups that divide the number of experts", groups=groups, logits=logits)
    top_groups = groups if top_groups is None else top_groups
    size("router", top_groups=top_groups)
    demand("router", top_groups <= groups, "top_groups of at most groups", top_groups=top_groups, groups=groups)
    demand("router", k <= top_groups * (e // groups), "k of at most the number of experts to choose from", k=k, logits=logits,
           top_groups=top_groups, groups=groups)
    not_nan("router", logits=logits, by=by, bias=bias)

    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = _scored(logits, score)
    not_nan("router", scores=scores)  # from a logit of ∞, or from nothing but −∞
    with torch.no_grad():
        # Scores rise with their logits: where nothing is added to them the logits choose the same, and rounding makes no ties there.
        if by is None:
            by = logits if bias is None and (groups == 1 or group_score == "max") else scores
        by = by if bias is None else by + bias
        if top_groups < groups:
            by = _confined(by, groups, top_groups, best=1 if group_score == "max" else 2)
        ids = top_k(by, k=k)

    weights = scores.gather(-1, ids) if before else _scored(logits.gather(-1, ids), score)
    if renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return Routes(weights * scale, scores, ids)


def _scored(logits: Tensor, score: str) -> Tensor:
    return logits.softmax(-1) if score == "softmax" else logits.sigmoid()


def _confined(by: Tensor, groups: int, top_groups: int, best: int) -> Tensor:
    """`by` with −∞ in all groups but the top ones, those whose `best` largest entries sum to most."""
    grouped = by.unflatten(-1, (groups, by.shape[-1] // groups))
    good = grouped.topk(min(best, grouped.shape[-1]), -1).values.sum(-1)
    stays = torch.zeros_like(good, dtype=torch.bool).scatter_(-1, top_k(good, k=top_groups), True)
    return grouped.clamp_min(torch.finfo(by.dtype).min).masked_fill(~stays[..., None], -torch.inf).flatten(-2)
