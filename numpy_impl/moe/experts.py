"""A mixture of feed-forward experts, each of which works on the tokens that chose it and on no others (Shazeer et al. 2017,
arXiv:1701.06538; without padding or a capacity, as Gale et al. 2022, arXiv:2211.15841)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.gated_feed_forward import GATES
from numpy_impl.moe._inputs import checked
from numpy_impl.moe.grouped_linear import grouped_linear
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
    raised, up_backward = grouped_linear(rows, up, counts=counts)                           # (M, F)
    if gate is None:
        h, activation_backward = ACTIVATIONS[activation](raised)
    else:
        opened, gate_backward = grouped_linear(rows, gate, counts=counts)
        h, activation_backward = GATES[activation](opened, raised)
    results, down_backward = grouped_linear(h, down, counts=counts)                         # (M, D)
    y, unpermute_backward = unpermute(results, weights.reshape(-1)[slots], tokens=tokens, n=n)

    def backward(dy):
        dresults, dtaken = unpermute_backward(dy)
        dh, ddown, _ = down_backward(dresults)
        if gate is None:
            dgate, draised = None, activation_backward(dh)
            drows, dup, _ = up_backward(draised)
        else:
            dopened, draised = activation_backward(dh)
            drows, dup, _ = up_backward(draised)
            drows_by_gate, dgate, _ = gate_backward(dopened)
            drows += drows_by_gate
        # A weight that no row took has no gradient, one that several took has their sum: like the sum of a histogram.
        dweights = np.bincount(slots, weights=dtaken, minlength=math.prod(shape)).astype(dtype).reshape(shape)
        return permute_backward(drows), dweights, dgate, dup, ddown

    return y, backward
