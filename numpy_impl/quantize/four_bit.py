"""4-bit weights by the name of their format."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice
from numpy_impl.quantize._packed import FourBit
from numpy_impl.quantize.fp4 import dequantize_fp4, quantize_fp4
from numpy_impl.quantize.nf4 import dequantize_nf4, quantize_nf4

Kind = Literal["nf4", "fp4"]


def quantize_4bit(x: NDArray, *, kind: Kind = "nf4", block: int = 64) -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i,  by the table of `kind`.

    Parameters
    ----------
    x : (...)      N weights, float32 or float64
    kind : str     "nf4" or "fp4"
    block : int    how many weights share one absmax

    Returns
    -------
    codes : (⌈N/2⌉,) uint8
    absmax : (⌈N/block⌉,) float32

    Raises
    ------
    ValueError   if kind is unknown, or as in quantize_nf4 and quantize_fp4, which this calls

    Examples
    --------
    >>> quantize_4bit(np.ones((2, 3)), kind="fp4", block=2).codes
    array([51, 51, 51], dtype=uint8)
    """
    choice("quantize_4bit", ("nf4", "fp4"), kind=kind)
    return (quantize_nf4 if kind == "nf4" else quantize_fp4)(x, block=block)


def dequantize_4bit(
    codes: NDArray, *, absmax: NDArray, shape: Sequence[int], kind: Kind = "nf4", block: int = 64, dtype: DTypeLike = np.float32
) -> NDArray:
    """x[i] = absmax of i's block · table[code[i]],  by the table of `kind`.

    Parameters
    ----------
    codes : (⌈N/2⌉,)        bytes of quantize_4bit
    absmax : (⌈N/block⌉,)   float32 or float64
    shape : tuple of int    of x, N entries
    kind : str              "nf4" or "fp4"
    block : int
    dtype                   of x, float32 or float64

    Returns
    -------
    x : `shape`   a strip of rows that is made of whole blocks needs only its own part of codes and absmax

    Raises
    ------
    ValueError   if kind is unknown, or as in dequantize_nf4 and dequantize_fp4, which this calls

    Examples
    --------
    >>> x = np.linspace(-1, 1, 8 * 64, dtype=np.float32).reshape(8, 64)
    >>> codes, absmax = quantize_4bit(x)
    >>> whole = dequantize_4bit(codes, absmax=absmax, shape=(8, 64))
    >>> rows = dequantize_4bit(codes[2 * 32:5 * 32], absmax=absmax[2:5], shape=(3, 64))
    >>> bool((rows == whole[2:5]).all())
    True
    """
    choice("dequantize_4bit", ("nf4", "fp4"), kind=kind)
    return (dequantize_nf4 if kind == "nf4" else dequantize_fp4)(codes, absmax=absmax, shape=shape, block=block, dtype=dtype)
