"""The experts of a mixture: many feed-forward layers of one shape, their weights stacked."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, size
from numpy_impl.layers._fill import fill_uniform
from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.gated_feed_forward import GATES
from numpy_impl.layers.module import Module
from numpy_impl.moe.experts import experts
from numpy_impl.moe.permute import Plan


class Experts(Module):
    """y_n = Σ over the experts e of token n of weight · down_e(activation(gate_e(x_n)) · up_e(x_n)),  without biases.

    Parameters
    ----------
    n_experts : int    E
    d_model : int      D, width of x and y
    d_hidden : int     F, width inside an expert
    activation : str   one of GatedFeedForward's (swiglu …), or one of FeedForward's (gelu …): then there is no gate_proj
    dtype              of the parameters
    rng                np.random.Generator of the initial values

    gate_proj, up_proj (E, F, D) and down_proj (E, D, F) start as those of as many Linear layers would.

    Examples
    --------
    >>> from numpy_impl.moe.permute import plan
    >>> layer = Experts(4, 3, 5, rng=np.random.default_rng(0))
    >>> x, weights = np.ones((2, 3), np.float32), np.full((2, 1), 0.5, np.float32)
    >>> y, backward = layer.forward(x, weights, plan=plan(np.array([[3], [1]]), experts=4))
    >>> dx, dweights, grads = backward(np.ones_like(y))
    >>> dx.shape, dweights.shape, [float(abs(grad).max()) > 0 for grad in grads["up_proj"]]     # experts 1 and 3 were used
    ((2, 3), (2, 1), [False, True, False, True])
    """

    def __init__(self, n_experts: int, d_model: int, d_hidden: int, *, activation: str = "swiglu", dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("Experts", n_experts=n_experts, d_model=d_model, d_hidden=d_hidden)
        choice("Experts", (*GATES, *ACTIVATIONS), activation=activation)
        rng = rng or np.random.default_rng()
        self.activation = activation
        self.gate_proj = np.empty((n_experts, d_hidden, d_model), dtype) if activation in GATES else None
        self.up_proj = np.empty((n_experts, d_hidden, d_model), dtype)
        self.down_proj = np.empty((n_experts, d_model, d_hidden), dtype)
        for array in (self.gate_proj, self.up_proj, self.down_proj):
            if array is not None:
                fill_uniform(array, rng, 1 / math.sqrt(array.shape[-1]))

    def forward(self, x: NDArray, weights: NDArray, *, plan: Plan) -> tuple[NDArray, Callable]:
        """x (N, D), weights of which row m of the plan takes entry slots[m] -> y (N, D); backward: dy -> dx, dweights, grads."""
        y, experts_backward = experts(x, weights, self.gate_proj, self.up_proj, self.down_proj, plan=plan, activation=self.activation)

        def backward(dy):
            dx, dweights, dgate, dup, ddown = experts_backward(dy)
            return dx, dweights, self.grads(gate_proj=dgate, up_proj=dup, down_proj=ddown)

        return y, backward
