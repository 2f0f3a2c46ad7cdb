"""Sinusoidal positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""

import torch
from torch import Tensor

from byhand.checks import positive, size


def sinusoidal(
    length: int,
    width: int,
    *,
    base: float = 10000.0,
    offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """table[p, 2i] = sin(t · ω_i),  table[p, 2i + 1] = cos(t · ω_i),  with  t = p + offset  and  ω_i = base^(−2i / width).

    -> (length, width); the angles are computed in float64 whatever the dtype.
    """
    size("sinusoidal", at_least=0, length=length, width=width, offset=offset)
    positive("sinusoidal", base=base)
    even = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    t = torch.arange(offset, offset + length, dtype=torch.float64, device=device)
    angles = t[:, None] * base ** (-even / width)
    table = torch.empty(length, width, dtype=dtype, device=device)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles[:, : width // 2].cos()
    return table
