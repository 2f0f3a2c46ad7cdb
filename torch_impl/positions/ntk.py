"""NTK-aware scaling: a larger base instead of smaller positions (Peng et al. 2023, arXiv:2309.00071, sections 3.1 and 3.3)."""

import torch
from torch import Tensor

from byhand.checks import at_least, positive, size
from torch_impl.positions.rotary import rotary_frequencies


def ntk_frequencies(width: int, *, factor: float, base: float = 10000.0, device: torch.device | str | None = None) -> Tensor:
    """ω′ᵢ = base′^(−2i / R),  with  base′ = base · s^(R / (R − 2)): pair 0 is kept, the slowest becomes s = factor times slower.

    -> (R/2,) float64.
    """
    size("ntk_frequencies", at_least=4, width=width)
    at_least("ntk_frequencies", 1, factor=factor)
    positive("ntk_frequencies", base=base)
    return rotary_frequencies(width, base=base * factor ** (width / (width - 2)), device=device)


def dynamic_ntk_frequencies(
    width: int,
    *,
    factor: float,
    original_length: int,
    length: int | None = None,
    base: float = 10000.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """ω′ᵢ = base′^(−2i / R),  with  base′ = base · (1 + s (L / T − 1))^(R / (R − 2)),  L = max(length, T),  T = original_length.

    -> (R/2,) float64.
    """
    who = "dynamic_ntk_frequencies"
    size(who, original_length=original_length)
    if length is not None:
        size(who, at_least=0, length=length)
    at_least(who, 1, factor=factor)
    stretch = 1.0 if length is None else max(length / original_length, 1.0)
    return ntk_frequencies(width, factor=1 + factor * (stretch - 1), base=base, device=device)
