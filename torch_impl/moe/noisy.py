"""Noise that makes a router explore: on its logits (Shazeer et al. 2017, arXiv:1701.06538), or on what it reads (jitter, in Switch)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import floats, in_range, same_shape
from byhand.noise import Noise
from torch_impl.ops.random_bits import random_bits


def noisy_logits(logits: Tensor, spread: Tensor, *, noise: Noise | None = None) -> Tensor:
    """y = logits + ε · softplus(spread),  with ε standard normal.  logits and spread of one shape; noise=None adds none (inference).

    ε is NumPy's up to rounding: the same bits, in float64 until the end.
    """
    floats("noisy_logits", logits=logits, spread=spread)
    same_shape("noisy_logits", logits.shape, spread=spread)
    if noise is None:
        return logits
    u, v = (random_bits(noise, (2, *logits.shape), device=logits.device).to(torch.float64) + 0.5) / 2**32
    eps = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)
    return logits + eps.to(logits.dtype) * F.softplus(spread)


def jitter(x: Tensor, *, eps: float, noise: Noise | None = None) -> Tensor:
    """y = x · u,  with u uniform in [1 − eps, 1 + eps].  x (...) -> y (...); noise=None changes nothing (inference)."""
    floats("jitter", x=x)
    in_range("jitter", 0, 1, eps=eps)
    if noise is None or eps == 0:
        return x
    bits = random_bits(noise, x.shape, device=x.device).to(torch.float64)
    return x * (1 + eps * (bits / 2**31 - 1)).to(x.dtype)
