"""The embedding table."""

import torch
from torch import Tensor, nn

from byhand.checks import demand, size
from byhand.noise import Noise
from torch_impl.ops.embedding import embedding


class Embedding(nn.Module):
    """y = weight[ids].  ids (...) integers -> y (..., D). weight (V, D) starts as unit normals, the row of padding_idx as zeros."""

    def __init__(self, vocabulary: int, d_model: int, *, padding_idx: int | None = None, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Embedding", vocabulary=vocabulary, d_model=d_model)
        demand("Embedding", padding_idx is None or 0 <= padding_idx < vocabulary, f"padding_idx in [0, {vocabulary - 1}]",
               padding_idx=padding_idx)
        self.padding_idx = padding_idx
        self.weight = nn.Parameter(torch.empty(vocabulary, d_model, dtype=dtype, device=device).normal_(generator=rng))
        if padding_idx is not None:
            with torch.no_grad():
                self.weight[padding_idx] = 0

    def forward(self, ids: Tensor, *, noise: Noise | None = None) -> Tensor:
        return embedding(self.weight, ids=ids, padding_idx=self.padding_idx)
