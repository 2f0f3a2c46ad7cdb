"""The affine layer."""

import math

import torch
from torch import Tensor, nn

from byhand.checks import size
from byhand.noise import Noise
from torch_impl.ops.linear import linear


class Linear(nn.Module):
    """y = x · weightᵀ + bias.  x (..., in) -> y (..., out). weight (out, in) and bias (out,) start uniform in ±1/√in."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Linear", in_features=in_features, out_features=out_features)
        bound = 1 / math.sqrt(in_features)

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound, generator=rng))

        self.weight = start(out_features, in_features)
        self.bias = start(out_features) if bias else None

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return linear(x, self.weight, self.bias)
