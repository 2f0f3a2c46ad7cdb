"""Absolute positions: one row of a table is added to every token, learned or sinusoidal."""

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, floats, same_shape, size
from torch_impl.positions.sinusoidal import sinusoidal


class LearnedPositions(nn.Module):
    """y = x + weight[offset : offset + T].  x (..., T, D); weight (max_length, D) starts as normals of deviation 0.02."""

    def __init__(self, max_length: int, d_model: int, *, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("LearnedPositions", max_length=max_length, d_model=d_model)
        self.weight = nn.Parameter(torch.empty(max_length, d_model, dtype=dtype, device=device).normal_(std=0.02, generator=rng))

    def forward(self, x: Tensor, *, offset: int = 0) -> Tensor:
        floats("LearnedPositions", x=x, weight=self.weight)
        at_least_rank("LearnedPositions", 2, x=x)
        t, (max_length, d) = x.shape[-2], self.weight.shape
        same_shape("LearnedPositions", (*x.shape[:-1], d), x=x)
        size("LearnedPositions", at_least=0, offset=offset)
        demand("LearnedPositions", offset + t <= max_length, f"positions below {max_length}", offset=offset, x=x)
        return x + self.weight[offset : offset + t]


class SinusoidalPositions(nn.Module):
    """y = x + table[offset : offset + T],  with the table of `positions.sinusoidal`.  x (..., T, D)."""

    def __init__(self, d_model: int, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        size("SinusoidalPositions", d_model=d_model)
        self.d_model = d_model

    def forward(self, x: Tensor, *, offset: int = 0) -> Tensor:
        floats("SinusoidalPositions", x=x)
        at_least_rank("SinusoidalPositions", 2, x=x)
        same_shape("SinusoidalPositions", (*x.shape[:-1], self.d_model), x=x)
        return x + sinusoidal(x.shape[-2], self.d_model, offset=offset, dtype=x.dtype, device=x.device)
