"""One expert: a feed-forward layer as a function of its three matrices."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.gated_feed_forward import GATES


def expert(x: NDArray, gate: NDArray | None, up: NDArray, down: NDArray, activation: str) -> tuple[NDArray, Callable]:
    """y = h · downᵀ  with  h = activation(x gateᵀ) · x upᵀ,  or h = activation(x upᵀ) without gate.

    x (N, D), gate (F, D) or None, up (F, D), down (D, F) -> y (N, D), backward.
    backward(dy, dgate, dup, ddown) -> dx fills the three gradients of the matrices, each a slice of those of all experts: a copy is saved.
    """
    raised = x @ up.T                                                   # (N, F)
    if gate is None:
        h, activation_backward = ACTIVATIONS[activation](raised)
    else:
        h, activation_backward = GATES[activation](x @ gate.T, raised)

    def backward(dy, dgate, dup, ddown):
        # Three linear maps, of each of which dx = dy · W and dW = dyᵀ · x. Gate and up both read x: its gradient is a sum of two.
        np.matmul(dy.T, h, out=ddown)
        dh = dy @ down                                                  # (N, F)
        if gate is None:
            draised = activation_backward(dh)
            np.matmul(draised.T, x, out=dup)
            return draised @ up
        dopened, draised = activation_backward(dh)
        np.matmul(dopened.T, x, out=dgate)
        np.matmul(draised.T, x, out=dup)
        return dopened @ gate + draised @ up

    return h @ down.T, backward
