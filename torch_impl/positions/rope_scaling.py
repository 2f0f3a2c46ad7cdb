"""Rotary frequencies scaled for long contexts: one call for every scheme."""

from typing import NamedTuple

import torch
from torch import Tensor

from byhand.checks import demand, size
from byhand.configs.rope import RopeConfig
from torch_impl.positions.interpolation import interpolated_frequencies
from torch_impl.positions.llama3 import llama3_frequencies
from torch_impl.positions.longrope import longrope_attention_factor, longrope_frequencies
from torch_impl.positions.ntk import dynamic_ntk_frequencies, ntk_frequencies
from torch_impl.positions.rotary import rotary_frequencies
from torch_impl.positions.yarn import yarn_attention_factor, yarn_frequencies


class RopeFrequencies(NamedTuple):
    """frequencies (R/2,) float64, in radians a token; attention_factor, what cosine and sine are multiplied by."""

    frequencies: Tensor
    attention_factor: float


def rope_frequencies(config: RopeConfig, *, length: int | None = None, device: torch.device | str | None = None) -> RopeFrequencies:
    """ω′ and m of the scheme that config.type names; the NumPy side explains them. -> frequencies (R/2,) float64, attention_factor."""
    demand("rope_frequencies", isinstance(config, RopeConfig), "config as a RopeConfig", config=config)
    if length is not None:
        size("rope_frequencies", at_least=0, length=length)
    return RopeFrequencies(_frequencies(config, length, device), _attention_factor(config))


def _frequencies(c: RopeConfig, length: int | None, device: torch.device | str | None) -> Tensor:
    made = dict(base=c.base, device=device)
    match c.type:
        case "linear":
            return interpolated_frequencies(c.width, factor=c.factor, **made)
        case "ntk":
            return ntk_frequencies(c.width, factor=c.factor, **made)
        case "dynamic":
            return dynamic_ntk_frequencies(c.width, factor=c.factor, original_length=c.original_length, length=length, **made)
        case "yarn":
            ramp = dict(beta_fast=c.beta_fast, beta_slow=c.beta_slow, truncate=c.truncate)
            return yarn_frequencies(c.width, factor=c.factor, original_length=c.original_length, **ramp, **made)
        case "llama3":
            bands = dict(low_freq_factor=c.low_freq_factor, high_freq_factor=c.high_freq_factor)
            return llama3_frequencies(c.width, factor=c.factor, original_length=c.original_length, **bands, **made)
        case "longrope":
            factors = dict(short_factor=c.short_factor, long_factor=c.long_factor)
            return longrope_frequencies(c.width, **factors, original_length=c.original_length, length=length, **made)
        case _:
            return rotary_frequencies(c.width, **made)


def _attention_factor(c: RopeConfig) -> float:
    match c.type:
        case "yarn" | "longrope" if c.attention_factor is not None:
            return c.attention_factor
        case "yarn" if c.mscale is not None:
            return yarn_attention_factor(c.factor, mscale=c.mscale, mscale_all_dim=c.mscale_all_dim)
        case "yarn":
            return yarn_attention_factor(c.factor)
        case "longrope":
            return longrope_attention_factor(c.factor, original_length=c.original_length)
        case _:
            return 1.0
