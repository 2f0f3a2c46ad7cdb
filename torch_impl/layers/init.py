"""Initial values of weights: Kaiming, Xavier, truncated normal, orthogonal, as `torch.nn.init` draws them."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor, nn

from byhand.checks import choice, demand, floats, in_range, not_negative, positive, size

Mode = Literal["fan_in", "fan_out"]
Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
Device = torch.device | str | None


def kaiming_uniform(
    shape: tuple[int, ...],
    *,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w ~ U(−b, b),  b = √3 · std,  with the standard deviation of `kaiming_normal`."""
    return _kaiming("kaiming_uniform", nn.init.kaiming_uniform_, shape, a, mode, nonlinearity, dtype, device, rng)


def kaiming_normal(
    shape: tuple[int, ...],
    *,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w ~ N(0, std²),  std = gain / √fan,  where gain² makes up for the share of the variance that the nonlinearity takes."""
    return _kaiming("kaiming_normal", nn.init.kaiming_normal_, shape, a, mode, nonlinearity, dtype, device, rng)


def xavier_uniform(
    shape: tuple[int, ...],
    *,
    gain: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w ~ U(−b, b),  b = √3 · std,  with the standard deviation of `xavier_normal`."""
    return _scaled("xavier_uniform", nn.init.xavier_uniform_, shape, gain, dtype, device, rng)


def xavier_normal(
    shape: tuple[int, ...],
    *,
    gain: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w ~ N(0, std²),  std = gain · √(2 / (fan_in + fan_out)): between what activations need and what gradients need."""
    return _scaled("xavier_normal", nn.init.xavier_normal_, shape, gain, dtype, device, rng)


def truncated_normal(
    shape: tuple[int, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w ~ N(mean, std²) given low ≤ w ≤ high, at least a hundredth of the normal."""
    who = "truncated_normal"
    _check(who, shape, 0, dtype)
    positive(who, std=std)
    in_range(who, -1e30, 1e30, mean=mean, low=low, high=high)
    uncut = NormalDist(mean, std)
    demand(who, uncut.cdf(high) - uncut.cdf(low) >= 0.01, "low < high with a hundredth of the normal between them",
           low=low, high=high, mean=mean, std=std)
    return nn.init.trunc_normal_(torch.empty(shape, dtype=dtype, device=device), mean, std, low, high, generator=rng)


def orthogonal(
    shape: tuple[int, ...],
    *,
    gain: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """w = gain · Q,  Q uniform among the matrices (O, I · field) with orthonormal rows, or columns where there are fewer of them."""
    return _scaled("orthogonal", nn.init.orthogonal_, shape, gain, dtype, device, rng)


def _kaiming(
    who: str,
    fill: Callable,
    shape: tuple[int, ...],
    a: float,
    mode: Mode,
    nonlinearity: Nonlinearity,
    dtype: torch.dtype,
    device: Device,
    rng: torch.Generator | None,
) -> Tensor:
    _check(who, shape, 2, dtype)
    in_range(who, -1e30, 1e30, a=a)
    choice(who, ("fan_in", "fan_out"), mode=mode)
    choice(who, ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"), nonlinearity=nonlinearity)
    w = torch.empty(shape, dtype=dtype, device=device)
    return fill(w, a, mode, nonlinearity, generator=rng) if w.numel() else w


def _scaled(
    who: str, fill: Callable, shape: tuple[int, ...], gain: float, dtype: torch.dtype, device: Device, rng: torch.Generator | None
) -> Tensor:
    _check(who, shape, 2, dtype)
    not_negative(who, gain=gain)
    w = torch.empty(shape, dtype=dtype, device=device)
    return fill(w, gain, generator=rng) if w.numel() else w


def _check(who: str, shape: tuple[int, ...], rank: int, dtype: torch.dtype) -> None:
    sizes = isinstance(shape, (tuple, list)) and len(shape) >= rank
    demand(who, sizes, f"shape as a tuple of at least {rank} sizes", shape=shape)
    for n in shape:
        size(who, at_least=0, shape=n)
    floats(who, values=torch.empty(0, dtype=dtype))
