"""Gated linear units (Dauphin et al. 2017, arXiv:1612.08083; Shazeer 2020, arXiv:2002.05202)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import floats, same_shape


def glu(gate: Tensor, up: Tensor) -> Tensor:
    """y = σ(gate) · up.  One shape."""
    _checked("glu", gate, up)
    return torch.sigmoid(gate) * up


def reglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = max(gate, 0) · up.  One shape."""
    _checked("reglu", gate, up)
    return F.relu(gate) * up


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = GELU(gate) · up, with the exact GELU.  One shape."""
    _checked("geglu", gate, up)
    return F.gelu(gate) * up


def geglu_tanh(gate: Tensor, up: Tensor) -> Tensor:
    """y = GELU(gate) · up, with the tanh form of GELU (T5 v1.1, Gemma).  One shape."""
    _checked("geglu_tanh", gate, up)
    return F.gelu(gate, approximate="tanh") * up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = SiLU(gate) · up.  One shape."""
    _checked("swiglu", gate, up)
    return F.silu(gate) * up


def bilinear(gate: Tensor, up: Tensor) -> Tensor:
    """y = gate · up: a gated unit without an activation.  One shape."""
    _checked("bilinear", gate, up)
    return gate * up


def _checked(name: str, gate: Tensor, up: Tensor) -> None:
    floats(name, gate=gate, up=up)
    same_shape(name, gate.shape, up=up)
