"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

from typing import NamedTuple

import torch
from torch import Tensor

from byhand.checks import at_least_rank, broadcastable, demand, exact_rank, floats, numbers, positive, same_shape, size


class RotaryTable(NamedTuple):
    """Cosines and sines of the angles, (..., T, R/2) each."""

    cos: Tensor
    sin: Tensor


def rotary(x: Tensor, *, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """yₐ = xₐ · cos − x_b · sin,  y_b = x_b · cos + xₐ · sin  for the two numbers of every pair; what is beyond R passes as it is.

    x (..., T, E), cos and sin (..., T, R/2) with leading axes that broadcast to those of x -> y (..., T, E). Pairs are (i, i + R/2), or
    (2i, 2i + 1) if interleaved.
    """
    floats("rotary", x=x, cos=cos, sin=sin)
    at_least_rank("rotary", 2, x=x, cos=cos)
    same_shape("rotary", cos.shape, sin=sin)
    t, e = x.shape[-2:]
    half = cos.shape[-1]
    demand("rotary", 2 * half <= e, "x at least twice as wide as cos and sin", x=x, cos=cos)
    demand("rotary", cos.shape[-2] == t, "as many positions in cos and sin as in x", x=x, cos=cos)
    broadcastable("rotary", (*x.shape[:-1], half), cos=cos)

    turned, rest = x.split((2 * half, e - 2 * half), -1)
    pairs = turned.unflatten(-1, (half, 2) if interleaved else (2, half))
    axis = -1 if interleaved else -2
    a, b = pairs.unbind(axis)                                           # (..., T, R/2)
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), axis).flatten(-2)
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


def rotary_frequencies(width: int, *, base: float = 10000.0, device: torch.device | str | None = None) -> Tensor:
    """ωᵢ = base^(−2i / width)  for the pairs i = 0 … width/2 − 1  -> (width/2,) float64, in radians a token."""
    size("rotary_frequencies", at_least=0, width=width)
    demand("rotary_frequencies", width % 2 == 0, "an even width", width=width)
    positive("rotary_frequencies", base=base)
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / max(width, 1))


def rotary_table(
    positions: Tensor, *, frequencies: Tensor, attention_factor: float = 1.0, dtype: torch.dtype = torch.float32
) -> RotaryTable:
    """cos = c · cos(m ωᵢ),  sin = c · sin(m ωᵢ)  for every position m and frequency ωᵢ, with c = attention_factor.

    positions (..., T) integers or floats, frequencies (R/2,) -> (cos, sin), (..., T, R/2) each, on the device of positions; the angles are
    computed in float64 whatever the dtype.
    """
    numbers("rotary_table", positions=positions)
    floats("rotary_table", frequencies=frequencies)
    exact_rank("rotary_table", 1, frequencies=frequencies)
    positive("rotary_table", attention_factor=attention_factor)
    angles = positions.double()[..., None] * frequencies.double().to(positions.device)
    return RotaryTable((attention_factor * angles.cos()).to(dtype), (attention_factor * angles.sin()).to(dtype))


def to_interleaved(weight: Tensor, *, heads: int, width: int | None = None) -> Tensor:
    """Rows of a query or key projection from the half-split layout to the interleaved one: in every head (a…, b…) -> (a, b, a, b, …).

    weight (heads · E, ...) of any dtype -> the same shape; only the first `width` rows of a head (all by default) are moved.
    """
    per_head, width = _heads("to_interleaved", weight, heads, width)
    pairs = per_head[:, :width].unflatten(1, (2, width // 2)).transpose(1, 2).flatten(1, 2)
    return torch.cat((pairs, per_head[:, width:]), 1).reshape(weight.shape)


def to_half_split(weight: Tensor, *, heads: int, width: int | None = None) -> Tensor:
    """Rows of a query or key projection from the interleaved layout to the half-split one: in every head (a, b, a, b, …) -> (a…, b…).

    weight (heads · E, ...) of any dtype -> the same shape; only the first `width` rows of a head (all by default) are moved.
    """
    per_head, width = _heads("to_half_split", weight, heads, width)
    pairs = per_head[:, :width].unflatten(1, (width // 2, 2)).transpose(1, 2).flatten(1, 2)
    return torch.cat((pairs, per_head[:, width:]), 1).reshape(weight.shape)


def _heads(who: str, weight: Tensor, heads: int, width: int | None) -> tuple[Tensor, int]:
    at_least_rank(who, 1, weight=weight)
    size(who, heads=heads)
    demand(who, weight.shape[0] % heads == 0, "rows that divide into heads", weight=weight, heads=heads)
    e = weight.shape[0] // heads
    width = e if width is None else width
    size(who, at_least=0, width=width)
    demand(who, width % 2 == 0 and width <= e, f"an even width of at most {e}", width=width)
    return weight.reshape(heads, e, *weight.shape[1:]), width
