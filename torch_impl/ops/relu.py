"""Rectified linear units: plain, squared and leaky."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import floats, in_range


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0).  (Nair & Hinton 2010)  Any shape."""
    floats("relu", x=x)
    return F.relu(x)


def relu_squared(x: Tensor) -> Tensor:
    """y = max(x, 0)².  (So et al. 2021, Primer, arXiv:2109.08668)  Any shape."""
    floats("relu_squared", x=x)
    return F.relu(x).square()


def leaky_relu(x: Tensor, *, negative_slope: float = 0.01) -> Tensor:
    """y = x where x > 0, else negative_slope · x.  (Maas, Hannun & Ng 2013)  Any shape."""
    floats("leaky_relu", x=x)
    in_range("leaky_relu", 0, 1, negative_slope=negative_slope)
    return F.leaky_relu(x, negative_slope)
