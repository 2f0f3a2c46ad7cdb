"""Convolution in one and two dimensions."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, per_axis, same_shape, size


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o, t] = bias[o] + Σ_{c, i} weight[o, c, i] · x̄[n, c, t·stride + i·dilation],  x̄ being x with zeros around it.

    x (N, C, T), weight (O, C/groups, k), bias (O,) -> y (N, O, T').
    """
    return F.conv1d(x, weight, bias, *_options("conv1d", 1, x, weight, bias, stride, padding, dilation, groups), groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x̄[n, c, h·stride + i·dilation, w·stride + j·dilation].

    x (N, C, H, W), weight (O, C/groups, kh, kw), bias (O,) -> y (N, O, H', W'). Options are an int or one for each axis.
    """
    return F.conv2d(x, weight, bias, *_options("conv2d", 2, x, weight, bias, stride, padding, dilation, groups), groups)


def frozen_conv1d(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    weight: Tensor,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`conv1d` with a weight that is not trained."""
    return conv1d(x, weight.detach(), bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def frozen_conv2d(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    weight: Tensor,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with a weight that is not trained."""
    return conv2d(x, weight.detach(), bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _options(
    who: str,
    axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Check everything; (stride, padding, dilation) with one number for each axis."""
    floats(who, x=x, weight=weight, bias=bias)
    exact_rank(who, 2 + axes, x=x, weight=weight)
    stride, dilation = per_axis(who, axes, stride=stride), per_axis(who, axes, dilation=dilation)
    padding = per_axis(who, axes, at_least=0, padding=padding)
    size(who, groups=groups)
    demand(who, x.shape[1] == groups * weight.shape[1], "x with groups · weight.shape[1] channels", x=x, weight=weight, groups=groups)
    demand(who, weight.shape[0] % groups == 0, "weight with the same number of outputs in every group", weight=weight, groups=groups)
    same_shape(who, weight.shape[:1], bias=bias)
    demand(who, 0 not in (*weight.shape, *x.shape[2:]), "x and weight without empty axes, N excepted", x=x, weight=weight)
    fits = all(d * (k - 1) < n + 2 * p for n, p, d, k in zip(x.shape[2:], padding, dilation, weight.shape[2:], strict=True))
    demand(who, fits, "a kernel no larger than the padded x", x=x, weight=weight, padding=padding, dilation=dilation)
    return stride, padding, dilation
