"""Position interpolation for longer contexts (Chen et al. 2023, arXiv:2306.15595)."""

import torch
from torch import Tensor

from byhand.checks import at_least
from torch_impl.positions.rotary import rotary_frequencies


def interpolated_frequencies(width: int, *, factor: float, base: float = 10000.0, device: torch.device | str | None = None) -> Tensor:
    """ω′ᵢ = ωᵢ / s,  with  ωᵢ = base^(−2i / R)  and  s = factor: every position squeezed into the trained range.

    -> (R/2,) float64.
    """
    at_least("interpolated_frequencies", 1, factor=factor)
    return rotary_frequencies(width, base=base, device=device) / factor
