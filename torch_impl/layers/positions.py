"""Absolute positions: one row of a table is added to every token, learned or sinusoidal."""

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, floats, integers, same_shape, size
from torch_impl.ops.embedding import embedding
from torch_impl.positions.sinusoidal import sinusoidal


class LearnedPositions(nn.Module):
    """y = x + weight[offset : offset + T],  or  x + weight[positions].

    x (..., T, D), positions (..., T); weight (max_length, D) starts as normals of deviation 0.02.
    """

    def __init__(self, max_length: int, d_model: int, *, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("LearnedPositions", max_length=max_length, d_model=d_model)
        self.weight = nn.Parameter(torch.empty(max_length, d_model, dtype=dtype, device=device).normal_(std=0.02, generator=rng))

    def forward(self, x: Tensor, *, offset: int = 0, positions: Tensor | None = None) -> Tensor:
        floats("LearnedPositions", x=x, weight=self.weight)
        at_least_rank("LearnedPositions", 2, x=x)
        t, (max_length, d) = x.shape[-2], self.weight.shape
        same_shape("LearnedPositions", (*x.shape[:-1], d), x=x)
        size("LearnedPositions", at_least=0, offset=offset)
        if positions is not None:
            same_shape("LearnedPositions", x.shape[:-1], positions=positions)
            return x + embedding(self.weight, ids=positions)
        demand("LearnedPositions", offset + t <= max_length, f"positions below {max_length}", offset=offset, x=x)
        return x + self.weight[offset : offset + t]


class SinusoidalPositions(nn.Module):
    """y = x + table[offset : offset + T],  or  x + table[positions],  with the table of `positions.sinusoidal`.  x (..., T, D)."""

    def __init__(self, d_model: int, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        size("SinusoidalPositions", d_model=d_model)
        self.d_model = d_model

    def forward(self, x: Tensor, *, offset: int = 0, positions: Tensor | None = None) -> Tensor:
        floats("SinusoidalPositions", x=x)
        at_least_rank("SinusoidalPositions", 2, x=x)
        same_shape("SinusoidalPositions", (*x.shape[:-1], self.d_model), x=x)
        if positions is not None:
            integers("SinusoidalPositions", positions=positions)
            same_shape("SinusoidalPositions", x.shape[:-1], positions=positions)
            demand("SinusoidalPositions", not (positions < 0).any(), "positions >= 0", positions=positions)
            longest = int(positions.max()) + 1 if positions.numel() else 1
            return x + sinusoidal(longest, self.d_model, dtype=x.dtype, device=x.device)[positions]
        return x + sinusoidal(x.shape[-2], self.d_model, offset=offset, dtype=x.dtype, device=x.device)
