"""The Gaussian error linear unit and its two approximations (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import floats


def gelu(x: Tensor) -> Tensor:
    """y = x · Φ(x),  with the normal distribution function  Φ(x) = ½ (1 + erf(x / √2)).  Any shape."""
    floats("gelu", x=x)
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), the form of GPT-2.  Any shape."""
    floats("gelu_tanh", x=x)
    return F.gelu(x, approximate="tanh")


def gelu_sigmoid(x: Tensor) -> Tensor:
    """y = x · σ(1.702 x), the form of CLIP ("quick GELU").  Any shape."""
    floats("gelu_sigmoid", x=x)
    return x * torch.sigmoid(1.702 * x)
