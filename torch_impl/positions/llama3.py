"""The rope scaling of Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783; the formula is that of Meta's published code)."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least, demand, positive, size
from torch_impl.positions.rotary import rotary_frequencies


def llama3_frequencies(
    width: int,
    *,
    factor: float,
    original_length: int,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    base: float = 10000.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """ω′ᵢ = kᵢ ωᵢ + (1 − kᵢ) ωᵢ / s,  with  kᵢ = clip((rᵢ − low) / (high − low), 0, 1)  and  rᵢ = T ωᵢ / 2π  turns in training.

    -> (R/2,) float64.
    """
    who = "llama3_frequencies"
    at_least(who, 1, factor=factor)
    size(who, original_length=original_length)
    positive(who, low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
    demand(who, low_freq_factor < high_freq_factor, "low_freq_factor < high_freq_factor",
           low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
    frequencies = rotary_frequencies(width, base=base, device=device)
    turns = original_length * frequencies / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return torch.lerp(frequencies / factor, frequencies, kept)
