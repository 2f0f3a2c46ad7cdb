"""A mixture of feed-forward experts, each of which works on the tokens that chose it and on no others (Shazeer et al. 2017,
arXiv:1701.06538; without padding or a capacity, as Gale et al. 2022, arXiv:2211.15841)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numpy_impl.moe._expert import expert
from numpy_impl.moe._inputs import checked
from numpy_impl.moe._rows import active
from numpy_impl.moe.permute import Plan, permute, unpermute


def experts(x: NDArray, weights: NDArray, gate: NDArray | None, up: NDArray, down: NDArray, *, plan: Plan,
            activation: str = "swiglu") -> tuple[NDArray, Callable]:
    """y[t] = Σ over the rows m of token t of weights[slots[m]] · fₑ(x[t]),  e being the expert of row m,
    fₑ(x) = downₑ · (activation(gateₑ x) · upₑ x),  or downₑ · activation(upₑ x) without gate.

    Parameters
    ----------
    x : (N, D)          tokens, float32 or float64
    weights : any shape the router's weights; its flat entry slots[m] weighs row m
    gate : (E, F, D)    or None; then the activation is one of FeedForward's
    up : (E, F, D)
    down : (E, D, F)
    plan : Plan         which tokens each expert gets (`moe.plan` makes it), or its three arrays
    activation : str    one of GatedFeedForward's (swiglu, geglu …); without gate one of FeedForward's (gelu, relu …)

    Returns
    -------
    y : (N, D)          a token without rows is 0
    backward : dy (N, D) -> dx, dweights, dgate (None without gate), dup, ddown; of an expert without rows, exactly 0

    Raises
    ------
    ValueError   if shapes or the plan do not fit, dtypes differ, or there is no such activation

    Examples
    --------
    >>> from numpy_impl.moe.permute import plan
    >>> x, ids, weights = np.array([[1.0], [2.0]]), np.array([[1, 0], [1, 2]]), np.array([[0.5, 0.25], [1.0, 0.5]])
    >>> up, down = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1), np.ones((3, 1, 1))
    >>> y, backward = experts(x, weights, None, up, down, plan=plan(ids, experts=3), activation="relu")
    >>> y.ravel()
    array([  5.25, 120.  ])
    >>> dx, dweights, dgate, dup, ddown = backward(np.ones((2, 1)))
    >>> dweights
    array([[ 10.,   1.],
           [ 20., 200.]])
    """
    tokens, slots, counts = checked("experts", x, weights, gate, up, down, plan, activation)
    n, shape, dtype = len(x), weights.shape, weights.dtype

    rows, permute_backward = permute(x, tokens=tokens)                                      # (M, D)
    results, every = np.empty(rows.shape, x.dtype), []                                      # (M, D)
    # Expert by expert, and not product by product as `grouped_linear` would: what an expert computes in between stays in the cache.
    for e, own in active(counts):
        results[own], expert_backward = expert(rows[own], None if gate is None else gate[e], up[e], down[e], activation)
        every.append((e, own, expert_backward))
    y, unpermute_backward = unpermute(results, weights.reshape(-1)[slots], tokens=tokens, n=n)

    def backward(dy):
        # The same steps from the last to the first; an expert without rows has no step and keeps its zeros.
        dresults, dtaken = unpermute_backward(dy)
        drows = np.empty(dresults.shape, dtype)
        dgate, dup, ddown = (None if w is None else np.zeros(w.shape, dtype) for w in (gate, up, down))
        for e, own, expert_backward in every:
            drows[own] = expert_backward(dresults[own], None if dgate is None else dgate[e], dup[e], ddown[e])
        # Row m took entry slots[m] of the weights: dweights[s] = Σ_{m: slots[m] = s} dtaken[m], a histogram whose entries weigh.
        dweights = np.bincount(slots, weights=dtaken, minlength=math.prod(shape)).astype(dtype).reshape(shape)
        return permute_backward(drows), dweights, dgate, dup, ddown

    return y, backward
