"""Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, in_range, not_negative, same_shape


class BatchNorm(NamedTuple):
    """The normalised batch, and the running statistics after it (None if there were none)."""

    y: NDArray
    running_mean: NDArray | None
    running_var: NDArray | None


def batch_norm(
    x: NDArray,
    weight: NDArray | None = None,
    bias: NDArray | None = None,
    *,
    running_mean: NDArray | None = None,
    running_var: NDArray | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[BatchNorm, Callable]:
    """y = weight · x̂ + bias,  with  x̂ = (x − μ) / √(σ² + ε)  for each channel, over the batch and all positions.

    In training μ and σ² are the batch's own (σ² with 1/n), and the running statistics move towards them:

        running_mean ← (1 − momentum) · running_mean + momentum · μ
        running_var  ← (1 − momentum) · running_var + momentum · σ² · n / (n − 1)

    In inference μ and σ² are the running statistics, which stay as they are.

    Parameters
    ----------
    x : (N, C, ...)      activations: N examples, C channels, any axes of positions; float32 or float64
    weight : (C,)        scale γ, or None for 1
    bias : (C,)          shift β, or None for 0
    running_mean, running_var : (C,)   both or neither; never written to; inference needs them
    training : bool      normalise by the batch's statistics, or by the running ones
    momentum : float     weight of the new statistics in the running ones, in [0, 1]
    eps : float          ε ≥ 0, added to the variance inside the square root

    Returns
    -------
    (y, running_mean, running_var) : y (N, C, ...); the new running statistics (C,), None where none were given
    backward : dy (N, C, ...) -> dx (N, C, ...), dweight (C,) or None, dbias (C,) or None

    The running statistics carry no gradient.

    Raises
    ------
    ValueError   if x has fewer than two axes, another array is not of shape (C,), only one running statistic is given, inference has
                 none, training has fewer than two values a channel, momentum or eps is out of range, or a dtype differs

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [3.0, 4.0]])
    >>> (y, mean, var), backward = batch_norm(x, running_mean=np.zeros(2), running_var=np.ones(2), eps=0.0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 0.2]), array([1.1, 1.7]))
    """
    floats("batch_norm", x=x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    at_least_rank("batch_norm", 2, x=x)
    same_shape("batch_norm", x.shape[1:2], weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    demand("batch_norm", (running_mean is None) == (running_var is None), "running_mean and running_var, or neither",
           running_mean=running_mean, running_var=running_var)
    demand("batch_norm", training or running_mean is not None, "running_mean and running_var for inference", running_mean=running_mean)
    in_range("batch_norm", 0, 1, momentum=momentum)
    not_negative("batch_norm", eps=eps)

    shape, (rows, channels, *positions) = x.shape, x.shape
    s = math.prod(positions)
    n = rows * s                                                    # values a channel
    demand("batch_norm", not training or n > 1, "more than one value a channel in training", x=x)
    x = x.reshape(rows, channels * s)                               # (N, C·S): each channel is S neighbouring columns
    ones = np.ones(rows, x.dtype)                                   # ones @ x sums each column, faster than x.sum(0)

    def per_channel(columns):                                       # (C·S,) -> (C,)
        return columns.reshape(channels, s).sum(1)

    def spread(statistic):                                          # (C,) -> (C·S,)
        return np.repeat(statistic, s)

    if training:
        mean = per_channel(ones @ x) / n                            # μ
        centered = x - spread(mean)                                 # (N, C·S)
        var = per_channel(np.einsum("nc,nc->c", centered, centered)) / n  # σ²
        if running_mean is not None:
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * n / (n - 1) * var
    else:
        centered, var = x - spread(running_mean), running_var
    rstd = 1 / np.sqrt(var + eps)                                   # (C,), so that x̂ = centered · rstd
    scale = rstd if weight is None else rstd * weight               # (C,)
    y = centered * spread(scale)
    if bias is not None:
        y += spread(bias)

    def backward(dy):
        dy = dy.reshape(rows, channels * s)
        dweight = per_channel(np.einsum("nc,nc->c", dy, centered)) * rstd
        dbias = per_channel(ones @ dy)
        if training:
            # μ and σ depend on every value of the channel, so two projections come off dy: its mean (through μ) and its component
            # along x̂ (through σ). Both sums stand already in dbias and dweight.
            #     dx = (dy − mean(dy) − x̂ · mean(dy · x̂)) · weight / √(σ² + ε)
            dx = centered * spread(rstd * dweight / -n)
            dx += dy
            dx -= spread(dbias / n)
            dx *= spread(scale)
        else:
            dx = dy * spread(scale)
        return dx.reshape(shape), None if weight is None else dweight, None if bias is None else dbias

    return BatchNorm(y.reshape(shape), running_mean, running_var), backward
