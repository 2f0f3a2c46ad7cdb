"""FP4, a 4-bit floating-point format: one sign bit, two exponent bits, one mantissa bit, in bitsandbytes' encoding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numpy_impl.quantize._packed import FourBit, both_halves, pack, unpack


def fp4_table() -> NDArray:
    """level = (−1)^s · (1 + m/2) · 2^(4 − e) / 12 for the code s ee m (sign, exponent, mantissa), and (−1)^s · m/16 / 12 where e = 0.

    A float of unusual make: the exponent counts down, from 8 and 12 twelfths (e = 1) over 4 and 6 (e = 2) to 2 and 3 (e = 3), where another
    format would count up; and below these normal numbers stand, at e = 0, a zero and one subnormal, a sixteenth of a twelfth.

    Returns
    -------
    table : (16,) float32   in the order of the codes, which is not that of the levels; code 8 is −0

    Examples
    --------
    >>> (fp4_table() * 12).tolist()
    [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0, -0.0, -0.0625, -8.0, -12.0, -4.0, -6.0, -2.0, -3.0]
    """
    code = np.arange(16)
    sign, exponent, mantissa = 1 - 2.0 * (code >> 3), code >> 1 & 3, code & 1
    twelfths = np.where(exponent == 0, mantissa / 16, (1 + mantissa / 2) * 2.0 ** (4 - exponent))
    return sign.astype(np.float32) * twelfths.astype(np.float32) / np.float32(12)


def quantize_fp4(x: NDArray, *, block: int = 64) -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i; the lower level at a tie.

    Of the two zeros, code 0 is for zero and what is just below it, code 8 (−0) for what is just above it: bitsandbytes on a CPU sorts
    the levels without looking at their signs, and its bytes are what is wanted here.

    Parameters
    ----------
    x : (...)     N weights, float32 or float64; float64 is rounded to float32 first
    block : int   how many weights, in C order, share one absmax; the last block may be shorter

    Returns
    -------
    codes : (⌈N/2⌉,) uint8          two codes a byte, the first in the high half; an odd N ends with the code of 0
    absmax : (⌈N/block⌉,) float32

    Raises
    ------
    ValueError   if a weight is NaN or beyond float32's range, x is no float32 or float64 array, or block is not a positive integer

    Examples
    --------
    >>> codes, absmax = quantize_fp4(np.array([0.0, 3.0, -1.5, 0.3, 6.0], dtype=np.float32), block=4)
    >>> [f"{byte:02x}" for byte in codes], absmax
    (['03', 'd6', '30'], array([3., 6.], dtype=float32))
    """
    return pack("quantize_fp4", x, block=block, levels=_TABLE[_ORDER], codes_of=_CODES)


def dequantize_fp4(
    codes: NDArray, *, absmax: NDArray, shape: Sequence[int], block: int = 64, dtype: DTypeLike = np.float32
) -> NDArray:
    """x[i] = absmax of i's block · table[code[i]].

    Parameters
    ----------
    codes : (⌈N/2⌉,)        bytes of quantize_fp4
    absmax : (⌈N/block⌉,)   float32 or float64, used in float32
    shape : tuple of int    of x, N entries
    block : int
    dtype                   of x, float32 or float64; the product is rounded to float32 either way

    Returns
    -------
    x : `shape`   Whole blocks can be had by themselves: with an even number of values up to block a, and up to block b,
                  `codes[a·block/2 : b·block/2]` and `absmax[a:b]` are all it needs.

    Raises
    ------
    ValueError   if codes or absmax have not the length that shape and block ask for, or codes are not uint8

    Examples
    --------
    >>> codes = np.array([0x03, 0xD6, 0x30], dtype=np.uint8)
    >>> dequantize_fp4(codes, absmax=np.array([3, 6], dtype=np.float32), shape=(5,), block=4)
    array([ 0. ,  3. , -1.5,  0.5,  6. ], dtype=float32)
    """
    return unpack("dequantize_fp4", codes, absmax=absmax, shape=shape, block=block, dtype=dtype, pairs=_PAIRS)


_TABLE = fp4_table()
_ORDER = np.argsort(_TABLE, kind="stable").astype(np.uint8)                      # the code of each rank: of equal zeros, 0 comes first
_CODES = (np.repeat(_ORDER, 16) << 4 | np.tile(_ORDER, 16)).astype(np.uint8)   # a byte of two ranks as a byte of two codes
_PAIRS = both_halves(_TABLE)
