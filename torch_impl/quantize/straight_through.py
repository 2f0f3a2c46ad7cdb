"""Training through a rounding: the straight-through estimator (Bengio, Léonard & Courville 2013, arXiv:1308.3432)."""

import math

import torch
from torch import Tensor

from byhand.checks import axis_of, choice, demand, floats, ids_below, in_range, integers, same_shape, size


def fake_quantize(x: Tensor, *, scale: Tensor, zero_point: Tensor | None = None, bits: int = 8, signed: bool = True,
                  axis: int | None = None) -> Tensor:
    """y = (clip(q, low, high) − zero_point) · scale,  with  q = round(x / scale) + zero_point.

    x (...), scale and zero_point () or (x.shape[axis],) -> y (...). The gradient passes where low ≤ q ≤ high.
    `torch.fake_quantize_per_tensor_affine` and its like are the same in one kernel, but make a code of NaN and compute in float32.
    """
    floats("fake_quantize", x=x, scale=scale)
    integers("fake_quantize", zero_point=zero_point)
    low, high = _codes("fake_quantize", bits, signed)
    spread = _spread("fake_quantize", x, axis, scale=scale, zero_point=zero_point)
    _check_steps("fake_quantize", scale)
    ids_below("fake_quantize", high + 1, at_least=low, zero_point=zero_point)

    zero: Tensor | int = 0 if zero_point is None else zero_point.reshape(spread).to(x.dtype)
    with torch.no_grad():
        q = (x * (1 / scale).reshape(spread)).round() + zero
        y = (q.clamp(low, high) - zero) * scale.reshape(spread)
        inside = (q >= low) & (q <= high)
    return y + torch.where(inside, x - x.detach(), 0)   # + 0, whose gradient is the mask


def learned_step_quantize(x: Tensor, scale: Tensor, *, bits: int = 8, signed: bool = True, axis: int | None = None,
                          scaled_gradient: bool = True) -> Tensor:
    """y = round(clip(v, low, high)) · scale,  with  v = x / scale  (LSQ, Esser et al. 2020, arXiv:1902.08153).

    x (...), scale () or (x.shape[axis],) -> y (...). Both are differentiated; the scale's gradient is divided by √(N · high).
    """
    floats("learned_step_quantize", x=x, scale=scale)
    low, high = _codes("learned_step_quantize", bits, signed)
    choice("learned_step_quantize", (False, True), scaled_gradient=scaled_gradient)
    spread = _spread("learned_step_quantize", x, axis, scale=scale)
    _check_steps("learned_step_quantize", scale)

    factor = 1 / math.sqrt(_sharing(x, scale) * high) if scaled_gradient else 1.0
    with torch.no_grad():
        each = scale.reshape(spread)
        v = x / each
        codes, inside = v.clamp(low, high).round(), (low < v) & (v < high)
        slope = codes - torch.where(inside, v, 0)
        y = codes * each
    # Two zeros, whose gradients are the mask and the slope: no product of a scale and its reciprocal, which might overflow
    return y + torch.where(inside, x - x.detach(), 0) + (scale - scale.detach()).reshape(spread) * (factor * slope)


def learned_step_start(x: Tensor, *, bits: int = 8, signed: bool = True, axis: int | None = None) -> Tensor:
    """scale = 2 · mean|x| / √high, and 1 where that is 0.  x (...), finite -> () or (x.shape[axis],)."""
    floats("learned_step_start", x=x)
    _, high = _codes("learned_step_start", bits, signed)
    _spread("learned_step_start", x, axis)
    others = list(range(x.ndim)) if axis is None else [a for a in range(x.ndim) if a != axis % x.ndim]
    total = x.detach().abs().sum(others) if others else x.detach().abs()
    demand("learned_step_start", bool(total.isfinite().all()), "x and the sum of its magnitudes finite", x=x)
    step = total * (2 / (math.sqrt(high) * _sharing(x, total)))
    return torch.where(step > 0, step, 1.0)


def _codes(function: str, bits: int, signed: bool) -> tuple[int, int]:
    size(function, bits=bits)
    in_range(function, 2, 16, bits=bits)
    choice(function, (False, True), signed=signed)
    return (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _check_steps(function: str, scale: Tensor) -> None:
    if scale.device.type == "cpu":  # reading back would stall an accelerator
        fits = (scale > 0) & (scale < math.inf) & (1 / scale < math.inf)
        demand(function, bool(fits.all()), "every scale, and its reciprocal, > 0 and finite", scale=scale)


def _sharing(x: Tensor, scale: Tensor) -> int:
    return max(x.numel() // max(scale.numel(), 1), 1)


def _spread(function: str, x: Tensor, axis: int | None, **scales: Tensor | None) -> list[int]:
    """The shape in which a scale multiplies x."""
    if axis is not None:
        axis = axis_of(function, x.ndim, axis)
    same_shape(function, () if axis is None else x.shape[axis:axis + 1], **scales)
    return [n if a == axis else 1 for a, n in enumerate(x.shape)]
