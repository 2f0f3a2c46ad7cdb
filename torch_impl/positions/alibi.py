"""Attention with linear biases (Press, Smith & Lewis 2022, arXiv:2108.12409)."""

import math

import torch
from torch import Tensor

from byhand.checks import size


def alibi_slopes(heads: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
    """m_h = 2^(−8h / H)  for the heads h = 1 … H, where H is a power of two  -> (H,).

    Another H has the slopes of the largest power of two N below it, and then the 1st, 3rd, 5th … of the 2N.
    """
    size("alibi_slopes", heads=heads)
    n = 1 << int(heads).bit_length() - 1
    h = torch.cat((torch.arange(1, n + 1), torch.arange(heads - n) + 0.5))
    return (2.0 ** (-8 / n * h.double())).to(device, dtype)


def alibi_bias(
    heads: int,
    *,
    queries: int,
    keys: int,
    symmetric: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """bias[h, t, s] = −m_h · (t + S − T − s)  for the keys up to the query's own, and −∞ for those after it  -> (H, T, S).

    If symmetric, −m_h · |t + S − T − s|  for all keys.
    """
    size("alibi_bias", heads=heads)
    size("alibi_bias", at_least=0, queries=queries, keys=keys)
    t, s = (torch.arange(start, keys, dtype=torch.float64, device=device) for start in (keys - queries, 0))
    ahead = s - t[:, None]
    added = -ahead.abs() if symmetric else ahead.masked_fill(ahead > 0, -math.inf)
    return (alibi_slopes(heads, dtype=torch.float64, device=device)[:, None, None] * added).to(dtype)
