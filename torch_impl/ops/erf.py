"""The error function."""

import torch
from torch import Tensor

from byhand.checks import floats


def erf(x: Tensor) -> Tensor:
    """y = erf(x) = 2/√π · ∫₀ˣ exp(−t²) dt.  Any shape."""
    floats("erf", x=x)
    return torch.special.erf(x)
