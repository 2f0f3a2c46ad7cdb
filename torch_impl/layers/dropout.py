"""Dropout and stochastic depth as layers."""

import torch
from torch import Tensor, nn

from byhand.checks import in_range
from byhand.noise import Noise
from torch_impl.ops.dropout import drop_path, dropout


class Dropout(nn.Module):
    """y = x · kept / (1 − p), entry by entry; see `ops.dropout`. x (...) -> y (...). Without noise it is inference, whatever the mode."""

    def __init__(self, p: float = 0.5, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        in_range("Dropout", 0, 1, p=p)
        self.p = p

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return dropout(x, p=self.p, noise=noise)


class DropPath(nn.Module):
    """y_b = x_b · kept_b / (1 − p), sample by sample, at the end of a residual branch; see `ops.drop_path`. x (B, ...) -> y (B, ...)."""

    def __init__(self, p: float, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        in_range("DropPath", 0, 1, p=p)
        self.p = p

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return drop_path(x, p=self.p, noise=noise)
