"""The two classic squashing functions: the logistic sigmoid and the hyperbolic tangent."""

import torch
from torch import Tensor

from byhand.checks import floats


def sigmoid(x: Tensor) -> Tensor:
    """y = σ(x) = 1 / (1 + exp(−x)).  Any shape."""
    floats("sigmoid", x=x)
    return torch.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """y = tanh(x).  Any shape."""
    floats("tanh", x=x)
    return torch.tanh(x)
