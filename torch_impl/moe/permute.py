"""Dispatch: sort the choices of all tokens by expert, bring the tokens into that order, and bring the results back (Gale et al. 2022,
arXiv:2211.15841)."""

from typing import NamedTuple

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, exact_rank, floats, ids_below, same_shape, size
from torch_impl.moe._inputs import weighing


class Plan(NamedTuple):
    """Row m of the permuted rows is token tokens[m], weighed by entry slots[m] of the flattened weights; expert e has counts[e] rows.

    tokens (M,), slots (M,), counts (E,), all int64; experts ascending, and within one expert in token order.
    """

    tokens: Tensor
    slots: Tensor
    counts: Tensor


def plan(ids: Tensor, *, experts: int, kept: Tensor | None = None) -> Plan:
    """The places of ids sorted by expert, stably.  ids (..., k), kept (..., k) bool or None.

    Without `kept` nothing is read back from the device; with it, the number of rows is.
    """
    size("plan", experts=experts)
    ids_below("plan", experts, ids=ids)
    at_least_rank("plan", 1, ids=ids)
    booleans("plan", kept=kept)
    same_shape("plan", ids.shape, kept=kept)

    chosen = (ids.long() if kept is None else ids.long().where(kept, experts)).reshape(-1)
    ordered, slots = chosen.sort(stable=True)
    ends = torch.searchsorted(ordered, torch.arange(experts, device=ids.device), right=True)
    slots = slots if kept is None else slots[:int(ends[-1])]
    return Plan(slots // ids.shape[-1], slots, ends.diff(prepend=ends.new_zeros(1)))


def permute(x: Tensor, *, tokens: Tensor) -> Tensor:
    """y[m] = x[tokens[m]].  x (N, D), tokens (M,) -> y (M, D)."""
    floats("permute", x=x)
    exact_rank("permute", 2, x=x)
    ids_below("permute", x.shape[0], tokens=tokens)
    exact_rank("permute", 1, tokens=tokens)
    return x.index_select(0, tokens.long())     # its gradient is one index_add, several times as fast as that of x[tokens]


def unpermute(y: Tensor, weights: Tensor, *, tokens: Tensor, n: int) -> Tensor:
    """out[t] = Σ over the rows m with tokens[m] = t of weights[m] · y[m].  y (M, D), weights (M,), tokens (M,) -> out (n, D), like y.

    Weights may be float32 beside half precision; the sum is then taken in float32.
    """
    weighing("unpermute", weights, y=y)
    exact_rank("unpermute", 2, y=y)
    rows, width = y.shape
    size("unpermute", at_least=0, n=n)
    ids_below("unpermute", n, tokens=tokens)
    same_shape("unpermute", (rows,), weights=weights, tokens=tokens)
    weighed = y * weights[:, None]
    return weighed.new_zeros(n, width).index_add(0, tokens.long(), weighed).to(y.dtype)
