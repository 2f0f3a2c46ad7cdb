"""Eight bits a number, one scale a tensor, channel or token: around zero (absmax), or from the lowest value to the highest (zero point)."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, floats, given, integers, of_dtype, same_shape

Per = Literal["tensor", "channel", "token"]


class Int8(NamedTuple):
    """x ≈ codes · absmax / 127."""

    codes: Tensor
    absmax: Tensor


class ZeroPoint8(NamedTuple):
    """x ≈ (codes − zero_point) · scale."""

    codes: Tensor
    scale: Tensor
    zero_point: Tensor


def quantize_int8_absmax(x: Tensor, *, per: Per = "token") -> Int8:
    """codes = round(x · 127 / absmax).  x (...), finite -> codes (...) int8, absmax float32: (), (x.shape[0],) or x.shape[:-1] by `per`."""
    groups, low, high = _groups_and_range("quantize_int8_absmax", x, per)
    absmax = torch.maximum(high, low.abs())
    codes = (groups * _steps(127, absmax)).round().to(torch.int8)
    return Int8(codes.reshape(x.shape), absmax.reshape(_shape_of_scales(x, per)))


def dequantize_int8_absmax(codes: Tensor, *, absmax: Tensor, per: Per = "token", dtype: torch.dtype = torch.float32) -> Tensor:
    """x = codes · absmax / 127.  codes (...) int8, absmax as it was returned -> x (...)."""
    given("dequantize_int8_absmax", codes=codes, absmax=absmax)
    of_dtype("dequantize_int8_absmax", "int8", codes=codes)
    floats("dequantize_int8_absmax", absmax=absmax)
    _check_sharing("dequantize_int8_absmax", codes, per, absmax=absmax)
    choice("dequantize_int8_absmax", ("float16", "bfloat16", "float32", "float64"), dtype=str(dtype).removeprefix("torch."))
    groups = _groups(codes, per)
    return (groups.to(dtype) * (absmax.to(dtype) / 127).reshape(-1, 1)).reshape(codes.shape)


def quantize_int8_zero_point(x: Tensor, *, per: Per = "tensor", signed: bool = False) -> ZeroPoint8:
    """codes = round(x / scale) + zero_point,  with  scale = (max(x, 0) − min(x, 0)) / 255.

    x (...), finite -> codes (...) uint8 or int8, scale float32 and zero_point int32: (), (x.shape[0],) or x.shape[:-1] by `per`.
    """
    choice("quantize_int8_zero_point", (False, True), signed=signed)
    groups, low, high = _groups_and_range("quantize_int8_zero_point", x, per)
    scale = high / 255 - low / 255
    steps = _steps(1, scale)
    first = -128 if signed else 0
    zero_point = first - (low * steps).round()
    codes = ((groups * steps).round() + zero_point).clamp(first, first + 255).to(torch.int8 if signed else torch.uint8)
    shape = _shape_of_scales(x, per)
    return ZeroPoint8(codes.reshape(x.shape), scale.reshape(shape), zero_point.to(torch.int32).reshape(shape))


def dequantize_int8_zero_point(codes: Tensor, *, scale: Tensor, zero_point: Tensor, per: Per = "tensor",
                               dtype: torch.dtype = torch.float32) -> Tensor:
    """x = (codes − zero_point) · scale.  codes (...) uint8 or int8, scale and zero_point as they were returned -> x (...)."""
    given("dequantize_int8_zero_point", codes=codes, scale=scale, zero_point=zero_point)
    of_dtype("dequantize_int8_zero_point", "uint8", "int8", codes=codes)
    floats("dequantize_int8_zero_point", scale=scale)
    integers("dequantize_int8_zero_point", zero_point=zero_point)
    _check_sharing("dequantize_int8_zero_point", codes, per, scale=scale, zero_point=zero_point)
    choice("dequantize_int8_zero_point", ("float16", "bfloat16", "float32", "float64"), dtype=str(dtype).removeprefix("torch."))
    groups = _groups(codes, per).to(dtype)
    return ((groups - zero_point.reshape(-1, 1)) * scale.to(dtype).reshape(-1, 1)).reshape(codes.shape)


def _check_sharing(function: str, x: Tensor, per: str, **scales: Tensor) -> None:
    choice(function, ("tensor", "channel", "token"), per=per)
    at_least_rank(function, 0 if per == "tensor" else 1, x=x)
    same_shape(function, _shape_of_scales(x, per), **scales)


def _shape_of_scales(x: Tensor, per: str) -> tuple[int, ...]:
    return {"tensor": (), "channel": tuple(x.shape[:1]), "token": tuple(x.shape[:-1])}[per]


def _groups(x: Tensor, per: str) -> Tensor:
    """x as a matrix (G, W): each row shares a scale."""
    shape = _shape_of_scales(x, per)
    return x.reshape(math.prod(shape), math.prod(x.shape[len(shape):]))


def _groups_and_range(function: str, x: Tensor, per: str) -> tuple[Tensor, Tensor, Tensor]:
    """The groups (G, W), and min(x, 0) and max(x, 0) of each, (G, 1); all in float32."""
    given(function, x=x)
    floats(function, x=x)
    _check_sharing(function, x, per)
    groups = _groups(x.detach().float(), per)
    if groups.shape[1] == 0:
        return groups, groups.new_zeros(len(groups), 1), groups.new_zeros(len(groups), 1)
    low, high = groups.aminmax(dim=1, keepdim=True)
    demand(function, x.is_meta or bool((low.isfinite() & high.isfinite()).all()), "x finite in float32", x=x)
    return groups, low.clamp(max=0), high.clamp(min=0)


def _steps(count: int, length: Tensor) -> Tensor:
    """count / length, and 0 where that overflows; rounded twice, as bitsandbytes does."""
    steps = length.reciprocal() * count
    return steps.where(steps.isfinite(), 0)
