"""YaRN: slow pairs interpolated, fast ones kept, attention sharpened (Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4)."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least, demand, not_negative, positive, size
from torch_impl.positions.rotary import rotary_frequencies


def yarn_frequencies(
    width: int,
    *,
    factor: float,
    original_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    base: float = 10000.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """ω′ᵢ = (1 − γᵢ) ωᵢ + γᵢ ωᵢ / s,  with  γᵢ = clip((i − i_fast) / (i_slow − i_fast), 0, 1):  fast pairs kept, slow ones interpolated.

    i_β is the pair that makes β turns over original_length tokens. -> (R/2,) float64.
    """
    who = "yarn_frequencies"
    frequencies = rotary_frequencies(width, base=base, device=device)
    demand(who, base > 1, "base > 1", base=base)
    at_least(who, 1, factor=factor)
    size(who, original_length=original_length)
    positive(who, beta_fast=beta_fast, beta_slow=beta_slow)
    demand(who, beta_slow <= beta_fast, "beta_slow <= beta_fast", beta_slow=beta_slow, beta_fast=beta_fast)

    start = _pair_of(beta_fast, width, original_length, base)
    end = _pair_of(beta_slow, width, original_length, base)
    if truncate:
        start, end = math.floor(start), math.ceil(end)
    start, end = max(0, min(start, width - 1)), max(0, min(end, width - 1))
    pair = torch.arange(width // 2, dtype=torch.float64, device=device)
    # a ramp of no length is a step after its place
    ramp = ((pair - start) / (end - start)).clamp(0, 1) if start < end else (pair > start).double()
    return torch.lerp(frequencies, frequencies / factor, ramp)


def yarn_attention_factor(factor: float, *, mscale: float = 1.0, mscale_all_dim: float = 0.0) -> float:
    """m = (0.1 · mscale · ln s + 1) / (0.1 · mscale_all_dim · ln s + 1),  with  s = factor: scores carry m²."""
    at_least("yarn_attention_factor", 1, factor=factor)
    not_negative("yarn_attention_factor", mscale=mscale, mscale_all_dim=mscale_all_dim)
    return _sharpened(factor, mscale) / _sharpened(factor, mscale_all_dim)


def _pair_of(turns: float, width: int, length: int, base: float) -> float:
    """The (fractional) index of the pair that makes so many turns over `length` tokens; it is rounded, so both sides compute it alike."""
    return width * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))


def _sharpened(factor: float, mscale: float) -> float:
    return 1 + 0.1 * mscale * math.log(factor)
