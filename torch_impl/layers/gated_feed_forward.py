"""The gated feed-forward layer (Shazeer 2020, arXiv:2002.05202)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import choice, in_range, size
from byhand.noise import Noise, at
from torch_impl.layers.linear import Linear
from torch_impl.ops.dropout import dropout
from torch_impl.ops.gated import bilinear, geglu, geglu_tanh, glu, reglu, swiglu

GATES: dict[str, Callable] = {
    "swiglu": swiglu, "geglu": geglu, "geglu_tanh": geglu_tanh, "reglu": reglu, "glu": glu, "bilinear": bilinear,
}


class GatedFeedForward(nn.Module):
    """y = down_proj(dropout(activation(gate_proj(x)) · up_proj(x))).  x (..., D) -> y (..., D)."""

    def __init__(self, d_model: int, d_hidden: int, *, activation: str = "swiglu", bias: bool = False, dropout: float = 0.0,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("GatedFeedForward", d_model=d_model, d_hidden=d_hidden)
        choice("GatedFeedForward", GATES, activation=activation)
        in_range("GatedFeedForward", 0, 1, dropout=dropout)
        self.activation, self.dropout = activation, dropout
        made: dict[str, Any] = dict(bias=bias, dtype=dtype, device=device, rng=rng)
        self.gate_proj = Linear(d_model, d_hidden, **made)
        self.up_proj = Linear(d_model, d_hidden, **made)
        self.down_proj = Linear(d_hidden, d_model, **made)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        gate, up = self.gate_proj(x, noise=at(noise, "gate_proj")), self.up_proj(x, noise=at(noise, "up_proj"))
        h = GATES[self.activation](gate, up)
        return self.down_proj(dropout(h, p=self.dropout, noise=noise), noise=at(noise, "down_proj"))
