"""LLM.int8(): 8-bit matrix products with outliers in full precision (Dettmers, Lewis, Belkada and Zettlemoyer 2022, arXiv:2208.07339)."""

import functools
import importlib.util
import math
import numbers
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, choice, demand, exact_rank, floats, given, of_dtype, same_shape, size
from byhand.noise import Noise
from torch_impl.layers.linear import Linear
from torch_impl.quantize.int8 import dequantize_int8_absmax, quantize_int8_absmax
from torch_impl.quantize.int8_matmul import int8_matmul


class Int8Outliers(NamedTuple):
    """x ≈ codes · absmax / 127 in the columns that are no outliers."""

    codes: Tensor
    absmax: Tensor
    outliers: Tensor


def quantize_int8_outliers(x: Tensor, *, threshold: float = 6.0) -> Int8Outliers:
    """codes = round(x · 127 / absmax) in the columns that hold no |x| ≥ threshold, 0 in the others, the outliers.

    x (..., I) -> codes (..., I) int8, absmax (...) float32 of the entries below the threshold, outliers (I,) bool.
    """
    given("quantize_int8_outliers", x=x)
    floats("quantize_int8_outliers", x=x)
    at_least_rank("quantize_int8_outliers", 1, x=x)
    _check_threshold("quantize_int8_outliers", threshold)
    x = x.detach().float()
    small = x.abs() < threshold
    outliers = ~small.reshape(math.prod(x.shape[:-1]), x.shape[-1]).all(0)
    codes, absmax = quantize_int8_absmax(x.where(small, 0))
    return Int8Outliers(codes.masked_fill(outliers, 0), absmax, outliers)


def llm_int8_linear(x: Tensor, bias: Tensor | None = None, *, codes: Tensor, absmax: Tensor, threshold: float = 6.0,
                    kernel: Literal["auto", "bitsandbytes", "plain"] = "auto") -> Tensor:
    """y = x̂ Wᵀ + b,  with  W = codes · absmax / 127  and  x̂ what 8-bit codes keep of x, but x itself in the columns of its outliers.

    x (..., I), bias (O,), codes (O, I) int8, absmax (O,) -> y (..., O). The backward is that of x Wᵀ + b, and keeps nothing of x.

    kernel : "plain" is written out here. "bitsandbytes" quantizes, multiplies and scales in its own kernels: nothing may be empty,
             x must be float16 on CUDA, and NaN is not always handed on; "auto" takes it on CUDA where it serves and is installed.
    """
    given("llm_int8_linear", x=x, codes=codes, absmax=absmax)
    floats("llm_int8_linear", x=x, bias=bias)
    floats("llm_int8_linear", absmax=absmax)
    of_dtype("llm_int8_linear", "int8", codes=codes)
    at_least_rank("llm_int8_linear", 1, x=x)
    exact_rank("llm_int8_linear", 2, codes=codes)
    same_shape("llm_int8_linear", (codes.shape[0], x.shape[-1]), codes=codes)
    same_shape("llm_int8_linear", codes.shape[:1], absmax=absmax, bias=bias)
    _check_threshold("llm_int8_linear", threshold)
    choice("llm_int8_linear", ("auto", "bitsandbytes", "plain"), kernel=kernel)

    serves = x.numel() > 0 and codes.numel() > 0 and (x.device.type != "cuda" or x.dtype == torch.float16)
    if kernel == "bitsandbytes":
        demand("llm_int8_linear", serves, "no empty x or codes, and float16 on CUDA, for bitsandbytes", x=x, codes=codes)
    elif kernel == "auto":
        kernel = "bitsandbytes" if serves and x.device.type == "cuda" and _has_bitsandbytes() else "plain"
    y = _StraightThrough.apply(x, codes, absmax, threshold, _bitsandbytes if kernel == "bitsandbytes" else _plain)
    return y if bias is None else y + bias


@functools.cache
def _has_bitsandbytes() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


class _StraightThrough(torch.autograd.Function):
    """x̂ Wᵀ, whose backward is that of x Wᵀ."""

    @staticmethod
    def forward(ctx, x, codes, absmax, threshold, product):
        ctx.save_for_backward(codes, absmax)
        return product(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), codes, absmax, threshold).reshape(*x.shape[:-1], len(codes))

    @staticmethod
    def backward(ctx, dy):
        codes, absmax = ctx.saved_tensors
        return (dy * (absmax.to(dy.dtype) / 127)) @ codes.to(dy.dtype), None, None, None, None


def _plain(x: Tensor, codes: Tensor, absmax: Tensor, threshold: float) -> Tensor:
    x_codes, x_absmax, outliers = quantize_int8_outliers(x, threshold=threshold)
    wide = torch.promote_types(x.dtype, torch.float32)                           # half precision would overflow on sums of codes
    y = int8_matmul(x_codes, codes) * (x_absmax.to(wide)[:, None] / 127)
    if outliers.any():
        y = y + (x[:, outliers] @ codes[:, outliers].T.to(x.dtype)).to(wide)
    return (y * (absmax.to(wide) / 127)).to(x.dtype)


def _bitsandbytes(x: Tensor, codes: Tensor, absmax: Tensor, threshold: float) -> Tensor:
    import bitsandbytes.functional as F

    x = x if x.device.type == "cuda" else x.clone()                               # off CUDA it writes into x for a while
    x_codes, x_absmax, outliers = F.int8_vectorwise_quant(x, threshold=threshold if threshold < math.inf else 0.0)
    return torch.ops.bitsandbytes.int8_mixed_scaled_mm(x, x_codes, codes, x_absmax, absmax.float(), outliers)[0]


def _check_threshold(function: str, threshold: float) -> None:
    number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
    demand(function, number and threshold > 0, "threshold > 0", threshold=threshold)


class Linear8bit(nn.Module):
    """y = x̂ Wᵀ + bias  by `llm_int8_linear`: a linear layer with a frozen weight of 8-bit codes.

    codes (out, in) int8 and absmax (out,) float32, also after a cast, are buffers, bias (out,) is a parameter; `weight` is made afresh
    from the codes.
    """

    codes: Tensor
    absmax: Tensor

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, threshold: float = 6.0,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Linear8bit", in_features=in_features, out_features=out_features)
        self._quantize(Linear(in_features, out_features, bias=bias, dtype=dtype, device=device, rng=rng), threshold)

    @classmethod
    def from_linear(cls, linear: Any, *, threshold: float = 6.0) -> "Linear8bit":
        """The 8-bit layer in the place of a `Linear` (anything with a weight (out, in) and a bias or None), which stays as it is; what is
        frozen there is frozen here."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._quantize(linear, threshold)
        return layer

    def _quantize(self, linear: Any, threshold: float) -> None:
        _check_threshold("Linear8bit", threshold)
        matrix = getattr(linear, "weight", None)
        demand("Linear8bit", matrix is not None and matrix.ndim == 2, "a layer whose weight is a matrix", layer=linear)
        self.threshold, self._dtype = threshold, linear.weight.dtype
        codes, absmax = quantize_int8_absmax(linear.weight)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), linear.bias.requires_grad)

    @property
    def weight(self) -> Tensor:
        return dequantize_int8_absmax(self.codes, absmax=self.absmax, dtype=self._dtype)

    def _apply(self, fn, recurse=True):
        absmax = self.absmax
        super()._apply(fn, recurse)
        if not absmax.is_meta:
            self.absmax = absmax.to(self.absmax.device)     # float32 whatever the module is cast to: another cast cannot bring it back
        self._dtype = fn(torch.empty(0, dtype=self._dtype, device=self.codes.device)).dtype
        return self

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        floats("Linear8bit", x=x, bias=self.bias)
        at_least_rank("Linear8bit", 1, x=x)
        same_shape("Linear8bit", (*x.shape[:-1], self.codes.shape[1]), x=x)
        return llm_int8_linear(x, self.bias, codes=self.codes, absmax=self.absmax, threshold=self.threshold)
