"""The normalising layers: what ops/layer_norm.py, ops/rms_norm.py and ops/batch_norm.py compute, with parameters."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import size
from numpy_impl.layers.module import Module
from numpy_impl.ops import batch_norm as ops
from numpy_impl.ops.batch_norm import batch_norm
from numpy_impl.ops.layer_norm import layer_norm
from numpy_impl.ops.rms_norm import rms_norm


class LayerNorm(Module):
    """y = weight · (x − μ) / √(σ² + ε) + bias  over the last axis; weight starts at 1, bias at 0.

    Parameters
    ----------
    width : int    of the last axis
    eps : float    ε, added to the variance
    bias : bool    whether there is a shift
    dtype          of the parameters

    Examples
    --------
    >>> y, backward = LayerNorm(3, eps=0.0).forward(np.array([[1, 2, 3]], dtype=np.float32))
    >>> y.round(4)
    array([[-1.2247,  0.    ,  1.2247]], dtype=float32)
    """

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = True, dtype: DTypeLike = np.float32):
        size("LayerNorm", width=width)
        self.eps = eps
        self.weight = np.ones(width, dtype)
        self.bias = np.zeros(width, dtype) if bias else None

    def forward(self, x: NDArray) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        y, norm_backward = layer_norm(x, self.weight, self.bias, eps=self.eps)

        def backward(dy):
            dx, dweight, dbias = norm_backward(dy)
            return dx, self.grads(weight=dweight, bias=dbias)

        return y, backward


class RMSNorm(Module):
    """y = weight · x / √(mean(x²) + ε)  over the last axis.

    Parameters
    ----------
    width : int          of the last axis
    eps : float          ε, added to the mean square
    unit_offset : bool   scale by 1 + weight in place of weight (Gemma)
    dtype                of the parameter

    The scale starts at 1: weight at 1, or at 0 with the offset.

    Examples
    --------
    >>> y, backward = RMSNorm(2, eps=0.0).forward(np.array([[1, 7]], dtype=np.float32))
    >>> y
    array([[0.2, 1.4]], dtype=float32)
    """

    def __init__(self, width: int, *, eps: float = 1e-6, unit_offset: bool = False, dtype: DTypeLike = np.float32):
        size("RMSNorm", width=width)
        self.eps, self.unit_offset = eps, unit_offset
        self.weight = np.zeros(width, dtype) if unit_offset else np.ones(width, dtype)

    def forward(self, x: NDArray) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        y, norm_backward = rms_norm(x, self.weight, eps=self.eps, unit_offset=self.unit_offset)

        def backward(dy):
            dx, dweight = norm_backward(dy)
            return dx, self.grads(weight=dweight)

        return y, backward


class BatchNorm(Module):
    """y = weight · (x − μ) / √(σ² + ε) + bias  for each channel, over the batch and all positions.

    Parameters
    ----------
    width : int        channels, the second axis of x
    eps : float        ε, added to the variance
    momentum : float   weight of a batch in the running statistics
    dtype              of the parameters and statistics

    A forward changes nothing: in training it returns the new running statistics beside y, and `keep` puts them in place, once a step.

    Examples
    --------
    >>> norm = BatchNorm(1, momentum=0.5)
    >>> out, backward = norm.forward(np.array([[1], [3]], dtype=np.float32), training=True)
    >>> norm.running_mean, out.running_mean
    (array([0.], dtype=float32), array([1.], dtype=float32))
    >>> norm.keep(out)
    >>> norm.running_mean
    array([1.], dtype=float32)
    """

    buffers = ("running_mean", "running_var")

    def __init__(self, width: int, *, eps: float = 1e-5, momentum: float = 0.1, dtype: DTypeLike = np.float32):
        size("BatchNorm", width=width)
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = np.ones(width, dtype), np.zeros(width, dtype)
        self.running_mean, self.running_var = np.zeros(width, dtype), np.ones(width, dtype)

    def forward(self, x: NDArray, *, training: bool = False) -> tuple[ops.BatchNorm, Callable]:
        """x (N, C, ...) -> (y (N, C, ...), running_mean (C,), running_var (C,)); backward: dy -> dx, grads."""
        out, norm_backward = batch_norm(x, self.weight, self.bias, running_mean=self.running_mean, running_var=self.running_var,
                                        training=training, momentum=self.momentum, eps=self.eps)

        def backward(dy):
            dx, dweight, dbias = norm_backward(dy)
            return dx, self.grads(weight=dweight, bias=dbias)

        return out, backward

    def keep(self, out: ops.BatchNorm) -> None:
        """Take over the running statistics that a forward in training returned."""
        self.running_mean[...], self.running_var[...] = out.running_mean, out.running_var
