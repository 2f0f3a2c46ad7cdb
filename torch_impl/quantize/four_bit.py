"""4-bit weights by the name of their format."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from byhand.checks import choice
from torch_impl.quantize._packed import FourBit, Kernel
from torch_impl.quantize.fp4 import dequantize_fp4, quantize_fp4
from torch_impl.quantize.nf4 import dequantize_nf4, quantize_nf4

Kind = Literal["nf4", "fp4"]


def quantize_4bit(x: Tensor, *, kind: Kind = "nf4", block: int = 64, kernel: Kernel = "auto") -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i,  by the table of `kind`.

    x (...) -> codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) float32. `kernel`: see quantize_nf4.
    """
    choice("quantize_4bit", ("nf4", "fp4"), kind=kind)
    return (quantize_nf4 if kind == "nf4" else quantize_fp4)(x, block=block, kernel=kernel)


def dequantize_4bit(
    codes: Tensor, *, absmax: Tensor, shape: Sequence[int], kind: Kind = "nf4", block: int = 64, dtype: torch.dtype = torch.float32,
    kernel: Kernel = "auto"
) -> Tensor:
    """x[i] = absmax of i's block · table[code[i]],  by the table of `kind`.

    codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) -> x of `shape`; a strip of rows that is made of whole blocks needs only its own part of
    codes and absmax. `kernel`: see dequantize_nf4.
    """
    choice("dequantize_4bit", ("nf4", "fp4"), kind=kind)
    dequantize = dequantize_nf4 if kind == "nf4" else dequantize_fp4
    return dequantize(codes, absmax=absmax, shape=shape, block=block, dtype=dtype, kernel=kernel)
