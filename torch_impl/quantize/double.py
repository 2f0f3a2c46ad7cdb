"""8-bit dynamic codes, and the second quantization of a quantized tensor's scales.

Dettmers 2016, "8-bit approximations for parallelism in deep learning", arXiv:1511.04561 (the dynamic data type);
Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, QLoRA, arXiv:2305.14314, section 3 (double quantization).

There is one kernel, PyTorch's own operators, because bitsandbytes' CUDA kernel gives other codes than its CPU kernel.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, given, of_dtype, same_shape, size
from torch_impl.quantize._spaced import spaced


class Dynamic8(NamedTuple):
    """codes (N,) uint8 into dynamic_map, and absmax (⌈N/block⌉,) float32."""

    codes: Tensor
    absmax: Tensor


class DoubleQuantized(NamedTuple):
    """codes (N,) uint8 and absmax (⌈N/block⌉,) float32 of scales without their mean, offset () float32."""

    codes: Tensor
    absmax: Tensor
    offset: Tensor


def dynamic_map(*, device: torch.device | str | None = None) -> Tensor:
    """±10^(i − 6) · (the midpoints of 2^i equal parts of [0.1, 1]) for i = 0 … 6,  0  and  1:  (256,) float32, ascending."""
    edges = [spaced(0.1, 1.0, 1 << i) for i in range(7)]
    positive = torch.cat([10.0 ** (i - 6) * ((e[:-1] + e[1:]) / 2) for i, e in enumerate(edges)])
    return torch.cat([-positive, torch.tensor([0.0, 1.0]), positive]).sort().values.to(device)


def quantize_dynamic(x: Tensor, *, block: int = 256) -> Dynamic8:
    """code[i] = argmin_c |map[c] − v|,  v = x[i] / absmax on a grid of 2¹⁶ points of [−1, 1],  absmax = max|x| over the block of i.

    x (...) of any float dtype -> codes (N,) uint8, absmax (⌈N/block⌉,) float32: bitsandbytes' bytes on a CPU.
    """
    given("quantize_dynamic", x=x)
    floats("quantize_dynamic", x=x)
    size("quantize_dynamic", block=block)
    flat = x.detach().to(torch.float32).reshape(-1)
    demand("quantize_dynamic", x.is_meta or bool(flat.isfinite().all()), "x finite in float32", x=x)
    return _quantize(flat, block)


def _quantize(x: Tensor, block: int) -> Dynamic8:
    block = min(block, max(len(x), 1))
    absmax = F.pad(x.abs(), (0, -len(x) % block)).view(-1, block).amax(1)
    scaled = x * (1 / absmax).repeat_interleave(block)[:len(x)]
    inside = scaled.masked_fill(scaled.isnan(), -1).clamp(-1, 1)     # 0 · (1 / absmax) is NaN where the reciprocal is infinite
    points = ((inside + 1) / 2).double().mul_(65535).add_(0.5).float().int()     # product and sum rounded once, and then down
    return Dynamic8(_NEAREST.to(x.device)[points], absmax)


def dequantize_dynamic(codes: Tensor, *, absmax: Tensor, block: int = 256) -> Tensor:
    """x[i] = absmax of i's block · map[code[i]].   codes (N,) uint8, absmax (⌈N/block⌉,) -> x (N,) float32."""
    return _dequantize("dequantize_dynamic", codes, absmax, block)


def _dequantize(who: str, codes: Tensor, absmax: Tensor, block: int) -> Tensor:
    size(who, block=block)
    given(who, codes=codes, absmax=absmax)
    exact_rank(who, 1, codes=codes)
    of_dtype(who, "uint8", codes=codes)
    floats(who, absmax=absmax)
    same_shape(who, (-(-len(codes) // block),), absmax=absmax)
    scales = absmax.to(torch.float32).repeat_interleave(min(block, len(codes)))[:len(codes)]
    return _MAP.to(codes.device)[codes.int()] * scales


def double_quantize(absmax: Tensor, *, block: int = 256) -> DoubleQuantized:
    """offset = mean(absmax),  codes, absmax = quantize_dynamic(absmax − offset).

    absmax (N,) -> codes (N,) uint8, absmax (⌈N/block⌉,) float32, offset () float32, summed in float64 and rounded once.
    """
    given("double_quantize", absmax=absmax)
    floats("double_quantize", absmax=absmax)
    exact_rank("double_quantize", 1, absmax=absmax)
    size("double_quantize", block=block)
    scales = absmax.detach().to(torch.float32)
    offset = (scales.sum(dtype=torch.float64) / max(len(scales), 1)).float()
    left = scales - offset
    finite = absmax.is_meta or bool(left.isfinite().all())
    demand("double_quantize", finite, "absmax, with and without its mean, finite in float32", absmax=absmax)
    return DoubleQuantized(*_quantize(left, block), offset)


def double_dequantize(codes: Tensor, *, absmax: Tensor, offset: Tensor, block: int = 256) -> Tensor:
    """absmax of the 4-bit blocks = dequantize_dynamic(codes, absmax) + offset:  (N,) float32."""
    given("double_dequantize", codes=codes, absmax=absmax, offset=offset)
    floats("double_dequantize", absmax=absmax, offset=offset)
    same_shape("double_dequantize", (), offset=offset)
    return _dequantize("double_dequantize", codes, absmax, block) + offset.to(torch.float32)


_MAP = dynamic_map()
_GRID = 2 * torch.arange(65536, dtype=torch.float32) / 65535 - 1
_NEAREST = torch.bucketize(_GRID, (_MAP[:-1] + _MAP[1:]) / 2).to(torch.uint8)   # the code of each point of the grid, the lower at a tie
