"""How many tokens an expert takes, and which ones they are when more would come."""

import math
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, choice, floats, given, ids_below, not_nan, positive, same_shape, size


def capacity(*, tokens: int, experts: int, k: int = 1, factor: float = 1.0, minimum: int = 1) -> int:
    """C = max(⌈k · tokens / experts · factor⌉, minimum), and never above `tokens`:  a token chooses an expert at most once.

    At least 1; `factor` counts as the decimal number that was written.
    """
    size("capacity", at_least=0, tokens=tokens)
    size("capacity", experts=experts, k=k, minimum=minimum)
    positive("capacity", factor=factor)
    limit = math.ceil(Fraction(k * tokens, experts) * Fraction(repr(float(factor))))
    return min(max(limit, minimum), max(tokens, 1))


def within_capacity(
    ids: Tensor,
    *,
    experts: int,
    limit: int,
    order: Literal["choice", "token", "weight"] = "choice",
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """keptₙⱼ = fewer than `limit` choices of the same expert come before choice j of token n, in the given order.

    "choice": all first choices in the order of their tokens, then all second ones; "token": token by token; "weight": the largest weight
    first, equal ones as under "choice". ids (..., k), weights (..., k), mask (...) False where a token is padding -> kept (..., k) bool.
    """
    size("within_capacity", experts=experts, limit=limit)
    choice("within_capacity", ("choice", "token", "weight"), order=order)
    ids_below("within_capacity", experts, ids=ids)
    at_least_rank("within_capacity", 1, ids=ids)
    if order == "weight":
        given("within_capacity", weights=weights)
    floats("within_capacity", weights=weights)
    same_shape("within_capacity", ids.shape, weights=weights)
    not_nan("within_capacity", weights=weights)
    booleans("within_capacity", mask=mask)
    same_shape("within_capacity", ids.shape[:-1], mask=mask)

    numbers = torch.arange(ids.numel(), device=ids.device)
    turn = numbers if order == "token" else numbers.view(ids.shape).movedim(-1, 0).flatten()
    if order == "weight" and weights is not None:
        turn = turn[weights.detach().flatten()[turn].sort(descending=True, stable=True).indices]
    goes = ids.long()
    goes = goes if mask is None else goes.masked_fill(~mask[..., None], experts)  # padding goes to an expert of its own, past the last
    goes, queue = goes.flatten()[turn].sort(stable=True)
    place = numbers - torch.searchsorted(goes, goes)                             # from where the choice's expert begins
    return torch.empty_like(turn, dtype=torch.bool).scatter_(0, turn[queue], (place < limit) & (goes < experts)).view(ids.shape)
