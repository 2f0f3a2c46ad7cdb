"""Rounding to bfloat16: the upper half of a float32."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats
from numpy_impl.ops._blocks import blocks


def round_to_bfloat16(x: NDArray) -> tuple[NDArray, Callable]:
    """y = the number nearest to x with an 8-bit significand and float32's exponents; of two as near, the one whose last bit is 0.

    Parameters
    ----------
    x : (...)   float32; float64 is rounded to float32 first, as torch does

    Returns
    -------
    y : (...)   of x's dtype, every number of it a bfloat16's: relative error below 2⁻⁸, subnormal numbers keep fewer digits, what
                is nearer to 2¹²⁸ than to (2 − 2⁻⁷)·2¹²⁷ is infinite; NaN stays NaN
    backward : dy (...) -> dx = dy (straight through: y steps where x moves, but on the whole they move together)

    Raises
    ------
    ValueError   if x is not float32 or float64

    Examples
    --------
    >>> y, backward = round_to_bfloat16(np.array([1.0, 1.003, 1.005, -3.14159], dtype=np.float32))
    >>> y
    array([ 1.       ,  1.       ,  1.0078125, -3.140625 ], dtype=float32)
    """
    floats("round_to_bfloat16", x=x)
    y = np.empty(x.shape, x.dtype)
    flat, rounded = x.reshape(-1), y.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in blocks(flat.size):
            rounded[piece] = _rounded(flat[piece].astype(np.float32))
    return y, lambda dy: dy


def _rounded(x: NDArray) -> NDArray:
    """float32 whose lower 16 bits are 0; x is overwritten.

    Read as an integer, the bits of a positive float32 count the floats up to it, and those of a negative one the same on its own
    side: rounding the float is rounding that integer to a multiple of 2¹⁶. Adding 2¹⁵ − 1 and cutting off carries into the upper half
    whatever is above half of it; adding one more where the upper half is odd also carries the half itself, and makes it even. A carry
    out of the significand raises the exponent, which is right, and out of the largest exponent's numbers makes infinity, which is too.
    """
    nan = np.isnan(x)
    bits = x.view(np.uint32)
    bits += (bits >> 16 & 1) + 0x7FFF
    bits &= 0xFFFF0000
    x[nan] = np.nan                          # whose bits a carry may have made into anything
    return x
