"""What a mixture of experts demands of its arrays and of its plan."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, counts, describe, exact_rank, fail, floats, given, ids_below, same_shape
from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.gated_feed_forward import GATES


def checked(who: str, x: NDArray, weights: NDArray, gate: NDArray | None, up: NDArray, down: NDArray, plan: Any,
            activation: str) -> tuple[NDArray, NDArray, NDArray]:
    """The plan's tokens (M,), slots (M,) and counts (E,) in int64, once all is found to fit."""
    given(who, x=x, weights=weights, up=up, down=down)
    floats(who, x=x, weights=weights, gate=gate, up=up, down=down)
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
    ids_below(who, weights.size, **{"plan.slots": slots})
    exact_rank(who, 1, **{"plan.tokens": tokens})
    same_shape(who, tokens.shape, **{"plan.slots": slots})
    counts(who, tokens.shape[0], **{"plan.counts": rows_of})
    same_shape(who, (count,), **{"plan.counts": rows_of})
    return tokens.astype(np.int64, copy=False), slots.astype(np.int64, copy=False), rows_of.astype(np.int64, copy=False)
