"""The normalising layers: what ops/layer_norm.py, ops/rms_norm.py and ops/batch_norm.py compute, with parameters."""

import torch
from torch import Tensor, nn

from byhand.checks import size
from torch_impl.ops import batch_norm as ops
from torch_impl.ops.batch_norm import batch_norm
from torch_impl.ops.layer_norm import layer_norm
from torch_impl.ops.rms_norm import rms_norm


class LayerNorm(nn.Module):
    """y = weight · (x − μ) / √(σ² + ε) + bias  over the last axis of x (..., D); weight starts at 1, bias at 0."""

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = True, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None):
        super().__init__()
        size("LayerNorm", width=width)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.zeros(width, dtype=dtype, device=device)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


class RMSNorm(nn.Module):
    """y = weight · x / √(mean(x²) + ε)  over the last axis of x (..., D); the scale is 1 + weight with unit_offset, and starts at 1."""

    def __init__(self, width: int, *, eps: float = 1e-6, unit_offset: bool = False, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None):
        super().__init__()
        size("RMSNorm", width=width)
        self.eps, self.unit_offset = eps, unit_offset
        start = torch.zeros if unit_offset else torch.ones
        self.weight = nn.Parameter(start(width, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, eps=self.eps, unit_offset=self.unit_offset)


class BatchNorm(nn.Module):
    """y = weight · (x − μ) / √(σ² + ε) + bias  for each channel of x (N, C, ...), over the batch and all positions.

    A forward changes nothing: in training it returns the new running statistics beside y, and `keep` puts them in place, once a step.
    """

    def __init__(self, width: int, *, eps: float = 1e-5, momentum: float = 0.1, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None):
        super().__init__()
        size("BatchNorm", width=width)
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(width, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.zeros(width, dtype=dtype, device=device))
        self.register_buffer("running_mean", torch.zeros(width, dtype=dtype, device=device))
        self.register_buffer("running_var", torch.ones(width, dtype=dtype, device=device))

    def forward(self, x: Tensor, *, training: bool = False) -> ops.BatchNorm:
        return batch_norm(x, self.weight, self.bias, running_mean=self.running_mean, running_var=self.running_var,
                          training=training, momentum=self.momentum, eps=self.eps)

    def keep(self, out: ops.BatchNorm) -> None:
        """Take over the running statistics that a forward in training returned."""
        self.running_mean.copy_(out.running_mean)
        self.running_var.copy_(out.running_var)
