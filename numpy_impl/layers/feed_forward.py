"""The position-wise feed-forward layer."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, in_range, size
from byhand.noise import Noise, at
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.gelu import gelu, gelu_sigmoid, gelu_tanh
from numpy_impl.ops.relu import relu, relu_squared
from numpy_impl.ops.silu import mish, silu

ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu, "gelu_tanh": gelu_tanh, "gelu_sigmoid": gelu_sigmoid,
    "relu": relu, "relu_squared": relu_squared, "silu": silu, "mish": mish,
}


class FeedForward(Module):
    """y = down_proj(dropout(activation(up_proj(x)))).

    Parameters
    ----------
    d_model : int      D, width of x and y
    d_hidden : int     F, width in between; 4 · D is usual
    activation : str   gelu, gelu_tanh, gelu_sigmoid, relu, relu_squared, silu or mish
    bias : bool        whether the projections have a bias
    dropout : float    the share of hidden activations that is dropped where `noise` is given
    dtype              of the parameters
    rng                np.random.Generator of the initial values

    Examples
    --------
    >>> mlp = FeedForward(4, 16, rng=np.random.default_rng(0))
    >>> y, backward = mlp.forward(np.ones((2, 4), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((2, 4), ['up_proj', 'down_proj'])
    """

    def __init__(self, d_model: int, d_hidden: int, *, activation: str = "gelu", bias: bool = True, dropout: float = 0.0,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("FeedForward", d_model=d_model, d_hidden=d_hidden)
        choice("FeedForward", ACTIVATIONS, activation=activation)
        in_range("FeedForward", 0, 1, dropout=dropout)
        self.activation, self.dropout = activation, dropout
        self.up_proj = Linear(d_model, d_hidden, bias=bias, dtype=dtype, rng=rng)
        self.down_proj = Linear(d_hidden, d_model, bias=bias, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        h, up_backward = self.up_proj.forward(x, noise=at(noise, "up_proj"))    # (..., F)
        h, activation_backward = ACTIVATIONS[self.activation](h)
        h, dropout_backward = dropout(h, p=self.dropout, noise=noise)
        y, down_backward = self.down_proj.forward(h, noise=at(noise, "down_proj"))

        def backward(dy):
            dh, ddown_proj = down_backward(dy)
            dx, dup_proj = up_backward(activation_backward(dropout_backward(dh)))
            return dx, {"up_proj": dup_proj, "down_proj": ddown_proj}

        return y, backward
