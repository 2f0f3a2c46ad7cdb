"""Dropout and stochastic depth as layers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import in_range
from byhand.noise import Noise
from numpy_impl.layers.module import Module
from numpy_impl.ops.dropout import drop_path, dropout


class Dropout(Module):
    """y = x · kept / (1 − p), entry by entry; see `ops.dropout`.

    Parameters
    ----------
    p : float   the probability in [0, 1] with which an entry is dropped
    dtype       taken like every layer takes it; there are no parameters

    Examples
    --------
    >>> layer = Dropout(0.5)
    >>> y, backward = layer.forward(np.ones(8), noise=Noise(seed=5))
    >>> y
    array([2., 0., 2., 2., 0., 0., 2., 0.])
    >>> layer(np.ones(2))                                # no noise: inference
    array([1., 1.])
    """

    def __init__(self, p: float = 0.5, *, dtype: DTypeLike = np.float32):
        in_range("Dropout", 0, 1, p=p)
        self.p = p

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (...) -> y (...); backward: dy -> dx, no grads."""
        y, dropout_backward = dropout(x, p=self.p, noise=noise)
        return y, lambda dy: (dropout_backward(dy), self.grads())


class DropPath(Module):
    """y_b = x_b · kept_b / (1 − p), sample by sample, at the end of a residual branch; see `ops.drop_path`.

    Parameters
    ----------
    p : float   the probability in [0, 1] with which a sample is dropped
    dtype       taken like every layer takes it; there are no parameters

    Examples
    --------
    >>> y, backward = DropPath(0.5).forward(np.ones((4, 1)), noise=Noise(seed=0))
    >>> y.ravel()
    array([0., 2., 2., 2.])
    """

    def __init__(self, p: float, *, dtype: DTypeLike = np.float32):
        in_range("DropPath", 0, 1, p=p)
        self.p = p

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (B, ...) -> y (B, ...); backward: dy -> dx, no grads."""
        y, drop_path_backward = drop_path(x, p=self.p, noise=noise)
        return y, lambda dy: (drop_path_backward(dy), self.grads())
