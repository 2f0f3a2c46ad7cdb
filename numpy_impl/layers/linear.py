"""The affine layer."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import size
from byhand.noise import Noise
from numpy_impl.layers._fill import fill_uniform
from numpy_impl.layers.module import Module
from numpy_impl.ops.linear import frozen_linear, linear


class Linear(Module):
    """y = x · weightᵀ + bias.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool    whether there is a bias
    dtype          of the parameters
    rng            np.random.Generator of the initial values

    weight (out, in) and bias (out,) start uniform in ±1/√in: a unit-variance x gives y a variance of 1/3, whatever the width.

    Examples
    --------
    >>> layer = Linear(3, 2, rng=np.random.default_rng(0))
    >>> y, backward = layer.forward(np.ones((4, 3), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, grads["weight"].shape, grads["bias"]
    ((4, 3), (2, 3), array([4., 4.], dtype=float32))
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("Linear", in_features=in_features, out_features=out_features)
        rng = rng or np.random.default_rng()
        self.weight = np.empty((out_features, in_features), dtype)
        self.bias = np.empty(out_features, dtype) if bias else None
        for array in (self.weight, self.bias):
            if array is not None:
                fill_uniform(array, rng, 1 / math.sqrt(in_features))

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads. A plain layer has no use for `noise`; an adapter in its place has."""
        if not self.trains("weight"):
            y, frozen_backward = frozen_linear(x, self.bias, weight=self.weight)

            def backward_to_x(dy):
                dx, dbias = frozen_backward(dy)
                return dx, self.grads(bias=dbias)

            return y, backward_to_x

        y, linear_backward = linear(x, self.weight, self.bias)

        def backward(dy):
            dx, dweight, dbias = linear_backward(dy)
            return dx, self.grads(weight=dweight, bias=dbias)

        return y, backward
