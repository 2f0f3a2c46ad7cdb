"""The affine layer."""

import torch
from torch import Tensor, nn

from byhand.checks import size
from torch_impl.ops.linear import linear


class Linear(nn.Module):
    """y = x · weightᵀ + bias.  x (..., in) -> y (..., out). weight (out, in) and bias (out,) start uniform in ±1/√in."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Linear", in_features=in_features, out_features=out_features)
        bound = in_features**-0.5
        weight = torch.empty(out_features, in_features, dtype=dtype, device=device)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=rng))
        self.bias = nn.Parameter(weight.new_empty(out_features).uniform_(-bound, bound, generator=rng)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
