"""What a mixture of experts demands of its arrays and of its plan."""

from typing import Any

import torch
from torch import Tensor

from byhand.checks import choice, counts, describe, exact_rank, fail, floats, given, ids_below, same_shape
from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.gated_feed_forward import GATES


def checked(who: str, x: Tensor, weights: Tensor, gate: Tensor | None, up: Tensor, down: Tensor, plan: Any,
            activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """The plan's tokens (M,), slots (M,) and counts (E,) in int64, once all is found to fit."""
    given(who, x=x, weights=weights, up=up, down=down)
    weighing(who, weights, x=x, gate=gate, up=up, down=down)
    exact_rank(who, 2, x=x)
    exact_rank(who, 3, up=up)
    count, hidden, width = up.shape[0], up.shape[1], x.shape[1]
    same_shape(who, (count, hidden, width), up=up, gate=gate)
    same_shape(who, (count, width, hidden), down=down)
    choice(who, ACTIVATIONS if gate is None else GATES, activation=activation)
    if not isinstance(plan, tuple) or len(plan) != 3:
        fail(who, "plan as a Plan: tokens, slots and counts", f"a tuple of {len(plan)}" if isinstance(plan, tuple) else describe(plan))
    tokens, slots, rows_of = plan
    ids_below(who, x.shape[0], **{"plan.tokens": tokens})
    ids_below(who, weights.numel(), **{"plan.slots": slots})
    exact_rank(who, 1, **{"plan.tokens": tokens})
    same_shape(who, tokens.shape, **{"plan.slots": slots})
    counts(who, tokens.shape[0], **{"plan.counts": rows_of})
    same_shape(who, (count,), **{"plan.counts": rows_of})
    return tokens.long(), slots.long(), rows_of.long()


def weighing(who: str, weights: Tensor, **arrays: Any) -> None:
    """All in one dtype, except that weights may be float32 beside half precision, as a router gives them."""
    floats(who, **arrays)
    (first, array), *_ = arrays.items()
    wider = array.dtype in (torch.float16, torch.bfloat16) and getattr(weights, "dtype", None) == torch.float32
    floats(who, **({} if wider else {first: array}), weights=weights)
