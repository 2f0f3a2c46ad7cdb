"""Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167)."""

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, in_range, not_negative, same_shape


class BatchNorm(NamedTuple):
    """The normalised batch, and the running statistics after it (None if there were none)."""

    y: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None


def batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> BatchNorm:
    """y = weight · x̂ + bias,  with  x̂ = (x − μ) / √(σ² + ε)  for each channel, over the batch and all positions.

    x (N, C, ...), weight, bias, running_mean, running_var (C,) or None -> y (N, C, ...) and the new running statistics. The kernel
    updates its running statistics in place, so in training it is given copies.
    """
    floats("batch_norm", x=x, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    at_least_rank("batch_norm", 2, x=x)
    same_shape("batch_norm", x.shape[1:2], weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    demand("batch_norm", (running_mean is None) == (running_var is None), "running_mean and running_var, or neither",
           running_mean=running_mean, running_var=running_var)
    demand("batch_norm", training or running_mean is not None, "running_mean and running_var for inference", running_mean=running_mean)
    in_range("batch_norm", 0, 1, momentum=momentum)
    not_negative("batch_norm", eps=eps)
    n = x.shape[0] * math.prod(x.shape[2:])
    demand("batch_norm", not training or n > 1, "more than one value a channel in training", x=x)
    if training and running_mean is not None and running_var is not None:
        running_mean, running_var = running_mean.detach().clone(), running_var.detach().clone()
    if x.numel() == 0:  # the kernel fails where there is no channel
        return BatchNorm(x.clone(), running_mean, running_var)
    return BatchNorm(F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps), running_mean, running_var)
