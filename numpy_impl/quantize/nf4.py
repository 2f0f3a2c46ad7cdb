"""NF4, the 4-bit format of normally distributed weights (Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, QLoRA, arXiv:2305.14314)."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numpy_impl.quantize._packed import FourBit, both_halves, pack, unpack
from numpy_impl.quantize._spaced import spaced

_OUTERMOST = 0.9677083      # the probability below the largest level before scaling, halfway between 1 − 1/30 and 1 − 1/32


def nf4_table() -> NDArray:
    """level = Φ⁻¹(p) / max Φ⁻¹(p):  quantiles of the standard normal distribution at evenly spaced probabilities p, scaled to [−1, 1].

    A normal number, scaled as the quantiles are, falls into each of 16 bins between them about equally often, which is what 4 bits are
    best spent on. (Weights are scaled by the largest of their block instead, which lies farther out the larger the block is: of blocks of
    64 the two outermost codes get 2 % each and the one of 0 gets 9 %. That leaves 3.88 of the 4 bits; Yoshida 2023, arXiv:2306.06965.)

    Sixteen quantiles that are symmetric about 0 would not contain 0 itself, and zero must stay zero: so the two halves are made apart.
    Above ½ stand eight levels (nine probabilities from the outermost to ½, without ½), below it seven (eight probabilities, without ½),
    and between them the level 0 that both would have shared.

    Returns
    -------
    table : (16,) float32   ascending; code c stands for table[c]

    Examples
    --------
    >>> nf4_table()[[0, 1, 7, 8, 15]].tolist()
    [-1.0, -0.6961928009986877, 0.0, 0.07958029955625534, 1.0]
    """
    above, below = (np.array([NormalDist().inv_cdf(p) for p in spaced(_OUTERMOST, 0.5, n)[:-1].tolist()], dtype=np.float32) for n in (8, 7))
    quantiles = np.concatenate([-below, np.zeros(1, dtype=np.float32), above[::-1]])
    return quantiles / quantiles[-1]


def quantize_nf4(x: NDArray, *, block: int = 64) -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i; the lower code at a tie.

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

    Notes
    -----
    The bytes are those of bitsandbytes on a CPU. A block of zeros gets absmax 0, or 1e-38 if it is ragged, and the code of 0.

    Examples
    --------
    >>> codes, absmax = quantize_nf4(np.array([0.0, 3.0, -1.5, 0.3, 6.0], dtype=np.float32), block=4)
    >>> [f"{byte:02x}" for byte in codes], absmax
    (['7f', '28', 'f7'], array([3., 6.], dtype=float32))
    """
    return pack("quantize_nf4", x, block=block, levels=_LEVELS)


def dequantize_nf4(
    codes: NDArray, *, absmax: NDArray, shape: Sequence[int], block: int = 64, dtype: DTypeLike = np.float32
) -> NDArray:
    """x[i] = absmax of i's block · table[code[i]].

    Parameters
    ----------
    codes : (⌈N/2⌉,)        bytes of quantize_nf4
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
    >>> codes = np.array([0x7F, 0x28, 0xF7], dtype=np.uint8)
    >>> dequantize_nf4(codes, absmax=np.array([3, 6], dtype=np.float32), shape=(5,), block=4).round(3)
    array([ 0.   ,  3.   , -1.575,  0.239,  6.   ], dtype=float32)
    """
    return unpack("dequantize_nf4", codes, absmax=absmax, shape=shape, block=block, dtype=dtype, pairs=_PAIRS)


_LEVELS = nf4_table()
_PAIRS = both_halves(_LEVELS)
