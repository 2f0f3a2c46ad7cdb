"""Layers that convolve, in one and two dimensions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import demand, per_axis, size
from byhand.noise import Noise
from numpy_impl.layers._fill import fill_uniform
from numpy_impl.layers.module import Module
from numpy_impl.ops.conv import conv1d, conv2d, frozen_conv1d, frozen_conv2d


class _Conv(Module):
    """What both have in common; `_axes` is how many axes the kernel moves along."""

    _axes: int
    _convolve: Callable
    _frozen_convolve: Callable

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
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ):
        who, axes = type(self).__name__, self._axes
        size(who, in_channels=in_channels, out_channels=out_channels, groups=groups)
        demand(who, in_channels % groups == out_channels % groups == 0, "channels that groups divides, in and out",
               in_channels=in_channels, out_channels=out_channels, groups=groups)
        kernel = per_axis(who, axes, kernel_size=kernel_size)
        self.stride, self.padding = per_axis(who, axes, stride=stride), per_axis(who, axes, at_least=0, padding=padding)
        self.dilation, self.groups = per_axis(who, axes, dilation=dilation), groups
        rng = rng or np.random.default_rng()
        shape = (out_channels, in_channels // groups, *kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = np.empty(shape, dtype)
        self.bias = np.empty(out_channels, dtype) if bias else None
        for array in (self.weight, self.bias):
            if array is not None:
                fill_uniform(array, rng, bound)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (N, C, ...) -> y (N, O, ...); backward: dy -> dx, grads. There is nothing that `noise` could drop out."""
        options: dict[str, Any] = dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        if not self.trains("weight"):
            y, frozen_backward = type(self)._frozen_convolve(x, self.bias, weight=self.weight, **options)

            def backward_to_x(dy):
                dx, dbias = frozen_backward(dy)
                return dx, self.grads(bias=dbias)

            return y, backward_to_x

        y, convolve_backward = type(self)._convolve(x, self.weight, self.bias, **options)

        def backward(dy):
            dx, dweight, dbias = convolve_backward(dy)
            return dx, self.grads(weight=dweight, bias=dbias)

        return y, backward


class Conv1d(_Conv):
    """y[n, o, t] = bias[o] + Σ_{c, i} weight[o, c, i] · x̄[n, c, t·stride + i·dilation],  x̄ being x with zeros around it.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int    k, in time steps
    stride : int         how far the kernel moves from one output to the next, in time steps
    padding : int        zeros added before and after, in time steps
    dilation : int       the distance of two kernel entries, in time steps
    groups : int         the channels fall into so many groups that do not see each other
    bias : bool          whether there is a bias
    dtype                of the parameters
    rng                  np.random.Generator of the initial values

    weight (O, C/groups, k) and bias (O,) start uniform in ±1/√(C/groups · k), one over the root of the numbers that an output sums.

    Raises
    ------
    ValueError   if a size or an option is out of range, or groups does not divide the channels

    Examples
    --------
    >>> layer = Conv1d(3, 8, 5, padding=2, rng=np.random.default_rng(0))
    >>> y, backward = layer.forward(np.ones((2, 3, 10), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> y.shape, dx.shape, grads["weight"].shape
    ((2, 8, 10), (2, 3, 10), (8, 3, 5))
    """

    _axes, _convolve, _frozen_convolve = 1, conv1d, frozen_conv1d


class Conv2d(_Conv):
    """y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x̄[n, c, h·stride + i·dilation, w·stride + j·dilation].

    x̄ is x with `padding` zeros on every side.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)    height and width of the kernel, in pixels
    stride : int or (int, int)         how far the kernel moves from one output to the next, in pixels
    padding : int or (int, int)        zeros added before and after, in pixels
    dilation : int or (int, int)       the distance of two kernel entries, in pixels
    groups : int                       the channels fall into so many groups that do not see each other; in_channels is depthwise
    bias : bool                        whether there is a bias
    dtype                              of the parameters
    rng                                np.random.Generator of the initial values

    weight (O, C/groups, kh, kw) and bias (O,) start uniform in ±1/√(C/groups · kh · kw), one over the root of the numbers that an output
    sums.

    Raises
    ------
    ValueError   if a size or an option is out of range, or groups does not divide the channels

    Examples
    --------
    >>> layer = Conv2d(3, 8, (3, 5), stride=2, rng=np.random.default_rng(0))
    >>> layer(np.zeros((2, 3, 33, 33), dtype=np.float32)).shape
    (2, 8, 16, 15)
    """

    _axes, _convolve, _frozen_convolve = 2, conv2d, frozen_conv2d
