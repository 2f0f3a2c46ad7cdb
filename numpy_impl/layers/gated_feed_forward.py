"""The gated feed-forward layer (Shazeer 2020, arXiv:2002.05202)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, in_range, size
from byhand.noise import Noise, at
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.gated import bilinear, geglu, geglu_tanh, glu, reglu, swiglu

GATES: dict[str, Callable] = {
    "swiglu": swiglu, "geglu": geglu, "geglu_tanh": geglu_tanh, "reglu": reglu, "glu": glu, "bilinear": bilinear,
}


class GatedFeedForward(Module):
    """y = down_proj(dropout(activation(gate_proj(x)) · up_proj(x))).

    Parameters
    ----------
    d_model : int      D, width of x and y
    d_hidden : int     F, width in between; 8/3 · D gives the parameters of an ungated layer of 4 · D
    activation : str   swiglu, geglu, geglu_tanh, reglu, glu (a sigmoid) or bilinear (none)
    bias : bool        whether the projections have a bias
    dropout : float    the share of gated activations that is dropped where `noise` is given
    dtype              of the parameters
    rng                np.random.Generator of the initial values

    Examples
    --------
    >>> mlp = GatedFeedForward(4, 10, rng=np.random.default_rng(0))
    >>> y, backward = mlp.forward(np.ones((2, 4), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((2, 4), ['gate_proj', 'up_proj', 'down_proj'])
    """

    def __init__(self, d_model: int, d_hidden: int, *, activation: str = "swiglu", bias: bool = False, dropout: float = 0.0,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("GatedFeedForward", d_model=d_model, d_hidden=d_hidden)
        choice("GatedFeedForward", GATES, activation=activation)
        in_range("GatedFeedForward", 0, 1, dropout=dropout)
        self.activation, self.dropout = activation, dropout
        self.gate_proj = Linear(d_model, d_hidden, bias=bias, dtype=dtype, rng=rng)
        self.up_proj = Linear(d_model, d_hidden, bias=bias, dtype=dtype, rng=rng)
        self.down_proj = Linear(d_hidden, d_model, bias=bias, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        gate, gate_backward = self.gate_proj.forward(x, noise=at(noise, "gate_proj"))  # (..., F)
        up, up_backward = self.up_proj.forward(x, noise=at(noise, "up_proj"))   # (..., F)
        h, gated_backward = GATES[self.activation](gate, up)
        h, dropout_backward = dropout(h, p=self.dropout, noise=noise)
        y, down_backward = self.down_proj.forward(h, noise=at(noise, "down_proj"))

        def backward(dy):
            dh, ddown_proj = down_backward(dy)
            dgate, dup = gated_backward(dropout_backward(dh))
            dx_by_gate, dgate_proj = gate_backward(dgate)
            dx_by_up, dup_proj = up_backward(dup)
            return dx_by_gate + dx_by_up, {"gate_proj": dgate_proj, "up_proj": dup_proj, "down_proj": ddown_proj}

        return y, backward
