"""LongRoPE: a factor of its own for every pair (Ding et al. 2024, arXiv:2402.13753)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from byhand.checks import at_least, demand, positive, size
from torch_impl.positions.rotary import rotary_frequencies


def longrope_frequencies(
    width: int,
    *,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    original_length: int,
    length: int | None = None,
    base: float = 10000.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """ω′ᵢ = ωᵢ / λᵢ,  with  λ = long_factor  where  length > original_length,  and  λ = short_factor  up to there.

    -> (R/2,) float64.
    """
    who = "longrope_frequencies"
    frequencies = rotary_frequencies(width, base=base, device=device)
    size(who, original_length=original_length)
    if length is not None:
        size(who, at_least=0, length=length)
    for name, factors in (("short_factor", short_factor), ("long_factor", long_factor)):
        demand(who, len(factors) == len(frequencies), f"{name} with a factor for each of {len(frequencies)} pairs", **{name: factors})
        for factor in factors:
            positive(who, **{name: factor})
    longer = length is not None and length > original_length
    return frequencies / torch.tensor(list(long_factor if longer else short_factor), dtype=torch.float64, device=device)


def longrope_attention_factor(factor: float, *, original_length: int) -> float:
    """m = √(1 + ln s / ln T),  with  s = factor  and  T = original_length: scores carry m², and attention stays as sharp as it was."""
    at_least("longrope_attention_factor", 1, factor=factor)
    size("longrope_attention_factor", at_least=2, original_length=original_length)
    return math.sqrt(math.log(factor * original_length, original_length))
