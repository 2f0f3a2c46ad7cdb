"""The experts of a mixture: many feed-forward layers of one shape, their weights stacked."""

import math

import torch
from torch import Tensor, nn

from byhand.checks import choice, size
from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.gated_feed_forward import GATES
from torch_impl.moe.experts import experts
from torch_impl.moe.permute import Plan


class Experts(nn.Module):
    """y_n = Σ over the experts e of token n of weight · down_e(activation(gate_e(x_n)) · up_e(x_n)),  without biases.

    x (N, D), weights of which row m of the plan takes entry slots[m] -> y (N, D). `kernel` chooses how the products of all experts are
    made, as `grouped_linear` explains.
    """

    def __init__(self, n_experts: int, d_model: int, d_hidden: int, *, activation: str = "swiglu", kernel: str = "auto",
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Experts", n_experts=n_experts, d_model=d_model, d_hidden=d_hidden)
        choice("Experts", (*GATES, *ACTIVATIONS), activation=activation)
        self.activation, self.kernel = activation, kernel

        def made(out_features: int, in_features: int) -> nn.Parameter:
            weight = torch.empty(n_experts, out_features, in_features, dtype=dtype, device=device)
            return nn.Parameter(nn.init.uniform_(weight, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features), generator=rng))

        self.gate_proj = made(d_hidden, d_model) if activation in GATES else None
        self.up_proj, self.down_proj = made(d_hidden, d_model), made(d_model, d_hidden)

    def forward(self, x: Tensor, weights: Tensor, *, plan: Plan) -> Tensor:
        return experts(x, weights, self.gate_proj, self.up_proj, self.down_proj, plan=plan, activation=self.activation, kernel=self.kernel)
