"""The affine layer whose weights are held in four bits (QLoRA: Dettmers et al. 2023, arXiv:2305.14314, equation 5)."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from byhand.checks import at_least_rank, choice, demand, fail, floats, of_dtype, same_shape, size
from byhand.noise import Noise
from torch_impl.layers.linear import Linear
from torch_impl.quantize.double import double_dequantize, double_quantize, dynamic_map
from torch_impl.quantize.four_bit import dequantize_4bit, quantize_4bit

Kind = Literal["nf4", "fp4"]
Kernel = Literal["auto", "plain", "bitsandbytes"]
_DOUBLE = ("absmax_codes", "absmax_absmax", "absmax_offset")
_KERNELS = ("auto", "plain", "bitsandbytes")
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)     # bitsandbytes' block sizes
_STRIP = 64 << 20                                       # bytes of the dequantized rows that exist at once: a GPU wants large products


def linear_4bit(x: Tensor, bias: Tensor | None = None, *, codes: Tensor, absmax: Tensor, out_features: int, kind: Kind = "nf4",
                block: int = 64, strip: int | None = None, kernel: Kernel = "auto") -> Tensor:
    """y = x Wᵀ + b,  with  W[o, i] = table[code of (o, i)] · absmax[block of (o, i)].

    x (..., I), bias (O,), codes (⌈O·I/2⌉,) uint8, absmax (⌈O·I/block⌉,) -> y (..., O). The graph keeps codes and absmax, not x.

    `kernel` is ``"plain"`` (rows are dequantized, multiplied and forgotten, `strip` of them at a time, in the backward once more),
    ``"bitsandbytes"`` (its matmul_4bit) or ``"auto"``: bitsandbytes where it can, on CUDA, in no float64, where rows are whole blocks.
    """
    floats("linear_4bit", x=x, bias=bias)
    at_least_rank("linear_4bit", 1, x=x)
    size("linear_4bit", at_least=0, out_features=out_features)
    _check_options("linear_4bit", kind, block)
    if strip is not None:
        size("linear_4bit", strip=strip)
    shape = (out_features, x.shape[-1])
    count = math.prod(shape)
    of_dtype("linear_4bit", "uint8", codes=codes)
    same_shape("linear_4bit", (-(-count // 2),), codes=codes)
    floats("linear_4bit", absmax=absmax)
    same_shape("linear_4bit", (-(-count // block),), absmax=absmax)
    same_shape("linear_4bit", (out_features,), bias=bias)
    if _by_bitsandbytes("linear_4bit", kernel, x, shape, block):  # pragma: no cuda
        return _matmul_4bit(x, bias, codes, shape, kind, block, absmax=absmax.float())
    return _linear(x, bias, functools.partial(_strips, codes, lambda: absmax, shape, kind, block, x.dtype, strip), out_features)


class Linear4bit(nn.Module):
    """y = x · Wᵀ + bias, with the frozen W in four bits a number; arguments and buffers are those of the NumPy side.

    absmax and what stands in its place stay float32 when the module is cast.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, kind: Kind = "nf4", block: int = 64, double: bool = False,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None,
                 kernel: Kernel = "auto"):
        super().__init__()
        size("Linear4bit", in_features=in_features, out_features=out_features)
        linear = Linear(in_features, out_features, bias=bias, dtype=dtype, device=device, rng=rng)
        self._hold(linear, kind, block, double, kernel)

    @classmethod
    def from_linear(cls, linear: Linear, *, kind: Kind = "nf4", block: int = 64, double: bool = False,
                    kernel: Kernel = "auto") -> "Linear4bit":
        """A Linear4bit with the weight of `linear`, quantized, and its bias, which is not copied; a frozen bias stays frozen."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(linear, kind, block, double, kernel)
        return layer

    def _hold(self, linear, kind, block, double, kernel):
        _check_options("Linear4bit", kind, block)
        choice("Linear4bit", (False, True), double=double)
        choice("Linear4bit", _KERNELS, kernel=kernel)
        matrix = getattr(linear, "weight", None)
        demand("Linear4bit", matrix is not None and matrix.ndim == 2, "a layer whose weight is a matrix", layer=linear)
        self.out_features, self.in_features = linear.weight.shape
        self.kind, self.block, self.double, self.dtype, self.kernel = kind, block, double, linear.weight.dtype, kernel
        self.bias = linear.bias
        codes, absmax = quantize_4bit(linear.weight, kind=kind, block=block)
        scales = dict(zip(_DOUBLE, double_quantize(absmax), strict=True)) if double else {"absmax": absmax}
        for name, buffer in {"codes": codes, **scales}.items():
            self.register_buffer(name, buffer)

    @property
    def weight(self) -> Tensor:
        """W (out, in), dequantized afresh."""
        shape = (self.out_features, self.in_features)
        return dequantize_4bit(self.codes, absmax=self._scales(), shape=shape, kind=self.kind, block=self.block, dtype=self.dtype)

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, W[rows]) from the first row to the last, each dequantized when its turn comes."""
        return ((rows, weight()) for rows, weight in self._strips(self.dtype))

    def _strips(self, dtype):
        # scales that are quantized themselves are dequantized anew each time: the graph does not keep them
        return _strips(self.codes, self._scales, (self.out_features, self.in_features), self.kind, self.block, dtype, None)

    def _scales(self):
        if self.double:
            return double_dequantize(self.absmax_codes, absmax=self.absmax_absmax, offset=self.absmax_offset)
        return self.absmax

    def _apply(self, fn, recurse=True):
        scales = {name: buffer for name, buffer in self._buffers.items() if buffer.is_floating_point() and not buffer.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in scales.items():
            self._buffers[name] = buffer.to(self._buffers[name].device)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.codes.device)).dtype
        return self

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        floats("Linear4bit", x=x, bias=self.bias)
        at_least_rank("Linear4bit", 1, x=x)
        same_shape("Linear4bit", (*x.shape[:-1], self.in_features), x=x)
        shape = (self.out_features, self.in_features)
        if _by_bitsandbytes("Linear4bit", self.kernel, x, shape, self.block):  # pragma: no cuda
            scales = {name: getattr(self, name) for name in (_DOUBLE if self.double else ("absmax",))}
            return _matmul_4bit(x, self.bias, self.codes, shape, self.kind, self.block, **scales)
        return _linear(x, self.bias, functools.partial(self._strips, x.dtype), self.out_features)


def _linear(x: Tensor, bias: Tensor | None, strips: Callable, out_features: int) -> Tensor:
    y = _ByStrips.apply(x, strips, out_features)
    return y if bias is None else y + bias


class _ByStrips(torch.autograd.Function):
    """x Wᵀ, where each call of `strips` goes through W once. Neither x nor W is saved: W is a constant, and can be had again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strips: Callable, out_features: int) -> Tensor:
        ctx.strips, ctx.shape = strips, x.shape
        y = x.new_empty(*x.shape[:-1], out_features)
        for rows, weight in strips():
            y[..., rows] = x @ weight().T
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        dx = dy.new_zeros(ctx.shape)
        for rows, weight in ctx.strips():
            dx += dy[..., rows] @ weight()
        return dx, None, None


def _strips(codes: Tensor, scales: Callable, shape: tuple[int, int], kind: Kind, block: int, dtype: torch.dtype,
            strip: int | None) -> Iterator[tuple[slice, Callable]]:
    """(rows, a function that dequantizes W[rows]) from the first row to the last; see the NumPy side."""
    out_features, width = shape
    absmax, whole = scales(), math.lcm(block, 2)
    strip = strip or max(1, _STRIP // max(1, width * dtype.itemsize))
    for row in range(0, out_features, strip):
        rows = slice(row, min(row + strip, out_features))
        begin, end = rows.start * width, rows.stop * width
        first, last = begin // whole * whole, min(-(-end // whole) * whole, out_features * width)

        def weight(rows=rows, begin=begin - first, end=end - first, first=first, last=last):
            numbers = dequantize_4bit(codes[first // 2:-(-last // 2)], absmax=absmax[first // block:-(-last // block)],
                                      shape=(last - first,), kind=kind, block=block, dtype=dtype)
            return numbers[begin:end].view(rows.stop - rows.start, width)

        yield rows, weight


def _by_bitsandbytes(function: str, kernel: Kernel, x: Tensor, shape: tuple[int, int], block: int) -> bool:
    """Whether bitsandbytes' product is to be used; what it cannot do is refused where it is named."""
    choice(function, _KERNELS, kernel=kernel)
    if kernel == "plain":
        return False
    if x.device.type != "cuda":
        why_not = "x on CUDA"
    elif x.dtype == torch.float64:
        why_not = "x in no float64"
    elif x.numel() == 0 or shape[0] == 0:
        why_not = "an x and a W that are not empty"
    elif block not in _BLOCKS or shape[1] % block:
        why_not = f"rows of whole blocks, and a block from {', '.join(map(str, _BLOCKS))}"
    else:  # pragma: no cuda
        why_not = None if _has_bitsandbytes() else "bitsandbytes installed"
    if why_not and kernel == "bitsandbytes":
        fail(function, f"for kernel='bitsandbytes' {why_not}", f"x {x.dtype} {tuple(x.shape)} on {x.device}, block={block}")
    return why_not is None


@functools.cache
def _has_bitsandbytes() -> bool:  # pragma: no cuda
    try:
        import bitsandbytes  # noqa: F401
    except Exception:        # installed for another PyTorch or CUDA, it may fail in many ways
        return False
    return True


def _matmul_4bit(x: Tensor, bias: Tensor | None, codes: Tensor, shape: tuple[int, int], kind: Kind, block: int, *,
                 absmax: Tensor | None = None, absmax_codes: Tensor | None = None, absmax_absmax: Tensor | None = None,
                 absmax_offset: Tensor | None = None) -> Tensor:
    """bitsandbytes' product; scales that are quantized themselves are dequantized by its kernel."""
    from bitsandbytes.autograd._functions import matmul_4bit
    from bitsandbytes.functional import QuantState, get_4bit_type

    of_scales = None
    if absmax is None:
        of_scales = QuantState(absmax=absmax_absmax, code=dynamic_map(device=x.device), blocksize=256, dtype=torch.float32)
    state = QuantState(
        absmax=absmax_codes if absmax is None else absmax, shape=torch.Size(shape), code=get_4bit_type(kind, device=x.device),
        blocksize=block, quant_type=kind, dtype=x.dtype, offset=absmax_offset, state2=of_scales,
    )
    return matmul_4bit(x, codes.view(-1, 1), quant_state=state, bias=bias)


def _check_options(function: str, kind: str, block: int) -> None:
    choice(function, ("nf4", "fp4"), kind=kind)
    size(function, block=block)
