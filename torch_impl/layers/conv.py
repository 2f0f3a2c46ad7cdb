"""Layers that convolve, in one and two dimensions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from byhand.checks import demand, per_axis, size
from byhand.noise import Noise
from torch_impl.ops.conv import conv1d, conv2d


class _Conv(nn.Module):
    """What both have in common; `_axes` is how many axes the kernel moves along."""

    _axes: int
    _convolve: Callable

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        rng: torch.Generator | None = None,
    ):
        super().__init__()
        who, axes = type(self).__name__, self._axes
        size(who, in_channels=in_channels, out_channels=out_channels, groups=groups)
        demand(who, in_channels % groups == out_channels % groups == 0, "channels that groups divides, in and out",
               in_channels=in_channels, out_channels=out_channels, groups=groups)
        kernel = per_axis(who, axes, kernel_size=kernel_size)
        self.stride, self.padding = per_axis(who, axes, stride=stride), per_axis(who, axes, at_least=0, padding=padding)
        self.dilation, self.groups = per_axis(who, axes, dilation=dilation), groups
        shape = (out_channels, in_channels // groups, *kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, dtype=dtype, device=device).uniform_(-bound, bound, generator=rng))

        self.weight = start(*shape)
        self.bias = start(out_channels) if bias else None

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return type(self)._convolve(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
        )


class Conv1d(_Conv):
    """y[n, o, t] = bias[o] + Σ_{c, i} weight[o, c, i] · x̄[n, c, t·stride + i·dilation].

    x (N, C, T) -> y (N, O, T'). weight (O, C/groups, k) and bias (O,) start uniform in ±1/√(C/groups · k), as `nn.Conv1d`'s do.
    """

    _axes, _convolve = 1, conv1d


class Conv2d(_Conv):
    """y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x̄[n, c, h·stride + i·dilation, w·stride + j·dilation].

    x (N, C, H, W) -> y (N, O, H', W'). weight (O, C/groups, kh, kw) and bias (O,) start uniform in ±1/√(C/groups · kh · kw).
    """

    _axes, _convolve = 2, conv2d
