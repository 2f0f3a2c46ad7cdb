"""A mixture of experts as it is defined: every expert on every token, then masked and weighed. What `moe.experts` is measured by."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numpy_impl.moe._expert import expert
from numpy_impl.moe._inputs import checked
from numpy_impl.moe.permute import Plan


def dense_experts(x: NDArray, weights: NDArray, gate: NDArray | None, up: NDArray, down: NDArray, *, plan: Plan,
                  activation: str = "swiglu") -> tuple[NDArray, Callable]:
    """y[t] = Σₑ c[t,e] · fₑ(x[t]),  where c[t,e] is the sum of the weights with which token t goes to expert e, mostly 0, and
    fₑ(x) = downₑ · (activation(gateₑ x) · upₑ x),  or downₑ · activation(upₑ x) without gate.

    The result and the gradients of `experts`, for E / k times its work.

    Parameters
    ----------
    x : (N, D)          tokens, float32 or float64
    weights : any shape the router's weights; the flat entry plan.slots[m] weighs row m of the plan
    gate : (E, F, D)    or None; then the activation is one of FeedForward's
    up : (E, F, D)
    down : (E, D, F)
    plan : Plan         which tokens each expert gets (`moe.plan` makes it), or its three arrays
    activation : str    one of GatedFeedForward's (swiglu, geglu …); without gate one of FeedForward's (gelu, relu …)

    Returns
    -------
    y : (N, D)
    backward : dy (N, D) -> dx, dweights, dgate (None without gate), dup, ddown

    Raises
    ------
    ValueError   as `experts` does

    Examples
    --------
    >>> x, plan = np.array([[1.0], [2.0]]), (np.array([0, 1]), np.array([0, 1]), np.array([1, 1]))
    >>> up, down = np.array([1.0, 10.0]).reshape(2, 1, 1), np.ones((2, 1, 1))
    >>> y, backward = dense_experts(x, np.array([0.5, 0.25]), None, up, down, plan=plan, activation="relu")
    >>> y.ravel()
    array([0.5, 5. ])
    """
    tokens, slots, counts = checked("dense_experts", x, weights, gate, up, down, plan, activation)
    n, experts = len(x), len(up)

    of_row = tokens * experts + np.repeat(np.arange(experts), counts)                       # (M,): the place of row m in c
    c = _summed(weights.reshape(-1)[slots], of_row, n * experts).reshape(n, experts)        # (N, E)
    every = [expert(x, None if gate is None else gate[e], up[e], down[e], activation) for e in range(experts)]
    y = np.zeros(x.shape, x.dtype)
    for e, (result, _) in enumerate(every):
        y += c[:, e, None] * result

    def backward(dy):
        # y[t] is a sum over e of products: dfₑ[t] = c[t,e] · dy[t], which masks too, and dc[t,e] = fₑ(x[t]) · dy[t].
        dx, dc = np.zeros(x.shape, x.dtype), np.empty(c.shape, c.dtype)
        dgate, dup, ddown = (None if w is None else np.empty(w.shape, w.dtype) for w in (gate, up, down))
        for e, (result, expert_backward) in enumerate(every):
            dc[:, e] = np.vecdot(result, dy)
            dx += expert_backward(c[:, e, None] * dy, None if dgate is None else dgate[e], dup[e], ddown[e])
        # c sums weights, so each weight receives the gradient of its sum, once for every row that it weighs.
        dweights = _summed(dc.reshape(-1)[of_row], slots, weights.size).reshape(weights.shape)
        return dx, dweights, dgate, dup, ddown

    return y, backward


def _summed(values: NDArray, places: NDArray, count: int) -> NDArray:
    """(count,): the sum of the values of each place; a histogram whose entries weigh."""
    return np.bincount(places, weights=values, minlength=count).astype(values.dtype)
