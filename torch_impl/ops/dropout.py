"""Dropout (Srivastava et al. 2014, JMLR 15) and stochastic depth (Huang et al. 2016, arXiv:1603.09382), by counter-based masks."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, floats, in_range
from byhand.noise import Noise
from torch_impl.ops.random_bits import random_bits


def dropout(x: Tensor, *, p: float = 0.5, noise: Noise | None = None) -> Tensor:
    """y = x · kept / (1 − p),  with  kept = (bits ≥ round(p · 2³²)),  so that the mean of y over all masks is x.

    x (...) -> y (...), x itself where nothing can be dropped (noise=None is inference). The mask is NumPy's, bit by bit.
    """
    floats("dropout", x=x)
    in_range("dropout", 0, 1, p=p)
    if noise is None or p == 0:
        return x
    return x * _kept(noise, x.shape, p, x.device) * _grown(p)


def drop_path(x: Tensor, *, p: float, noise: Noise | None = None) -> Tensor:
    """y_b = x_b · kept_b / (1 − p): dropout of whole samples, which turns a residual branch off for a sample (stochastic depth).

    x (B, ...) -> y (B, ...).
    """
    floats("drop_path", x=x)
    at_least_rank("drop_path", 1, x=x)
    in_range("drop_path", 0, 1, p=p)
    if noise is None or p == 0:
        return x
    factor = _kept(noise, x.shape[:1], p, x.device).to(x.dtype) * _grown(p)          # (B,)
    return x * factor.view(-1, *(1 for _ in x.shape[1:]))


def _kept(noise: Noise, shape: torch.Size, p: float, device: torch.device) -> Tensor:
    return random_bits(noise, shape, device=device).to(torch.int64) >= round(p * 2**32)


def _grown(p: float) -> float:
    """1 / (1 − p): what is kept makes up for what is dropped; where that is everything, nothing is left to grow."""
    return 0.0 if p == 1 else 1 / (1 - p)
