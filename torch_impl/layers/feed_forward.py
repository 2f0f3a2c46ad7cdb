"""The position-wise feed-forward layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import choice, in_range, size
from byhand.noise import Noise, at
from torch_impl.layers.linear import Linear
from torch_impl.ops.dropout import dropout
from torch_impl.ops.gelu import gelu, gelu_sigmoid, gelu_tanh
from torch_impl.ops.relu import relu, relu_squared
from torch_impl.ops.silu import mish, silu

ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu, "gelu_tanh": gelu_tanh, "gelu_sigmoid": gelu_sigmoid,
    "relu": relu, "relu_squared": relu_squared, "silu": silu, "mish": mish,
}


class FeedForward(nn.Module):
    """y = down_proj(dropout(activation(up_proj(x)))).  x (..., D) -> y (..., D)."""

    def __init__(self, d_model: int, d_hidden: int, *, activation: str = "gelu", bias: bool = True, dropout: float = 0.0,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("FeedForward", d_model=d_model, d_hidden=d_hidden)
        choice("FeedForward", ACTIVATIONS, activation=activation)
        in_range("FeedForward", 0, 1, dropout=dropout)
        self.activation, self.dropout = activation, dropout
        made: dict[str, Any] = dict(bias=bias, dtype=dtype, device=device, rng=rng)
        self.up_proj = Linear(d_model, d_hidden, **made)
        self.down_proj = Linear(d_hidden, d_model, **made)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        h = ACTIVATIONS[self.activation](self.up_proj(x, noise=at(noise, "up_proj")))
        return self.down_proj(dropout(h, p=self.dropout, noise=noise), noise=at(noise, "down_proj"))
