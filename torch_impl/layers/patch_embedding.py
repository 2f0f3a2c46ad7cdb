"""From images to tokens."""

import math

import torch
from torch import Tensor, nn

from byhand.checks import per_axis, size
from torch_impl.ops.patch_embedding import patch_embedding


class PatchEmbedding(nn.Module):
    """y[b, n] = weight · (patch n of image b, flattened) + bias,  patches counted row by row.

    images (B, C, H, W) -> y (B, N, D). weight (D, C, ph, pw) and bias (D,) start uniform in ±1/√(C · ph · pw), as `nn.Conv2d`'s do.
    """

    def __init__(self, channels: int, d_model: int, *, patch: int | tuple[int, int], bias: bool = True,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("PatchEmbedding", channels=channels, d_model=d_model)
        self.patch = per_axis("PatchEmbedding", 2, patch=patch)
        shape = (d_model, channels, *self.patch)
        bound = math.prod(shape[1:]) ** -0.5
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound, generator=rng))
        self.bias = nn.Parameter(torch.empty(d_model, dtype=dtype, device=device).uniform_(-bound, bound, generator=rng)) if bias else None

    def forward(self, images: Tensor) -> Tensor:
        return patch_embedding(images, self.weight, self.bias, patch=self.patch)
