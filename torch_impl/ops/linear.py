"""The linear map of the last axis: one matrix product forward, two backward."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, exact_rank, floats, same_shape


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b.  x (..., I), weight (O, I), bias (O,) -> y (..., O)."""
    floats("linear", x=x, weight=weight, bias=bias)
    at_least_rank("linear", 1, x=x)
    exact_rank("linear", 2, weight=weight)
    same_shape("linear", (weight.shape[0], x.shape[-1]), weight=weight)
    same_shape("linear", weight.shape[:1], bias=bias)
    return F.linear(x, weight, bias)


def frozen_linear(x: Tensor, bias: Tensor | None = None, *, weight: Tensor) -> Tensor:
    """y = x Wᵀ + b  with a W that is not trained.  x (..., I), bias (O,), weight (O, I) -> y (..., O)."""
    return linear(x, weight.detach(), bias)
