"""8-bit dynamic codes, and the second quantization of a quantized tensor's scales.

Dettmers 2016, "8-bit approximations for parallelism in deep learning", arXiv:1511.04561 (the dynamic data type);
Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, QLoRA, arXiv:2305.14314, section 3 (double quantization).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, given, of_dtype, same_shape, size
from numpy_impl.quantize._spaced import spaced


class Dynamic8(NamedTuple):
    """N numbers in blocks: codes (N,) uint8 into dynamic_map, and absmax (⌈N/block⌉,) float32."""

    codes: NDArray
    absmax: NDArray


class DoubleQuantized(NamedTuple):
    """N scales: codes (N,) uint8 and absmax (⌈N/block⌉,) float32 of what is left of them without their mean, offset () float32."""

    codes: NDArray
    absmax: NDArray
    offset: NDArray


def dynamic_map() -> NDArray:
    """±10^(i − 6) · (the midpoints of 2^i equal parts of [0.1, 1]) for i = 0 … 6,  0  and  1.

    Eight bits with a sign, an exponent of as many bits as it needs (i zeros are missing before a one) and a fraction of the i bits that
    are left: seven decades, the largest cut into 64 parts, the smallest into one. That is 2 · 127 levels, and 0 and 1 make 256.

    Returns
    -------
    map : (256,) float32   ascending; code c stands for map[c]

    Examples
    --------
    >>> levels = dynamic_map()
    >>> [f"{level:.4g}" for level in levels[[0, 1, 126, 127, 128, 255]]]
    ['-0.993', '-0.9789', '-5.5e-07', '0', '5.5e-07', '1']
    """
    edges = [spaced(0.1, 1.0, 1 << i) for i in range(7)]
    positive = np.concatenate([np.float32(10.0 ** (i - 6)) * ((e[:-1] + e[1:]) / 2) for i, e in enumerate(edges)])
    return np.sort(np.concatenate([-positive, np.array([0, 1], dtype=np.float32), positive]))


def quantize_dynamic(x: NDArray, *, block: int = 256) -> Dynamic8:
    """code[i] = argmin_c |map[c] − v|,  v = x[i] / absmax on a grid of 2¹⁶ points of [−1, 1],  absmax = max|x| over the block of i.

    The grid is bitsandbytes' on a CPU: one look-up in place of a search. It is coarser than the map around 0, where no point lies on 0
    itself: an exact 0 comes back as 2.1e-5 of absmax; a block of zeros as zeros, from code 0.

    Parameters
    ----------
    x : (...)     N numbers, float32 or float64; float64 is rounded to float32 first
    block : int   how many of them, in C order, share one absmax; the last block may be shorter

    Returns
    -------
    codes : (N,) uint8
    absmax : (⌈N/block⌉,) float32

    Raises
    ------
    ValueError   if x holds NaN or what is beyond float32's range, is no float32 or float64 array, or block is not a positive integer

    Examples
    --------
    >>> codes, absmax = quantize_dynamic(np.array([2.0, -2.0, 1.0, 0.002, 0.0]))
    >>> codes, absmax
    (array([255,   0, 219, 142, 131], dtype=uint8), array([2.], dtype=float32))
    """
    given("quantize_dynamic", x=x)
    floats("quantize_dynamic", x=x)
    size("quantize_dynamic", block=block)
    with np.errstate(over="ignore"):                  # what is too large for float32 becomes infinite, and is refused as such
        flat = x.astype(np.float32, copy=False).ravel()
    demand("quantize_dynamic", bool(np.isfinite(flat).all()), "x finite in float32", x=x)
    return _quantize(flat, block)


def _quantize(x: NDArray, block: int) -> Dynamic8:
    starts = np.arange(0, x.size, block)
    absmax = np.maximum.reduceat(np.abs(x), starts) if x.size else x
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        scaled = x * _spread(1 / absmax, block, x.size)
    # Where 1 / absmax is infinite, 0 gives NaN, which fmax takes for −1, as bitsandbytes does
    inside = np.fmin(np.fmax(scaled, np.float32(-1)), np.float32(1))
    share = (inside + 1) / 2                          # in float32; product and sum are then rounded once, as a fused multiply-add does
    points = (share.astype(np.float64) * 65535 + 0.5).astype(np.float32).astype(np.uint16)
    return Dynamic8(_NEAREST.take(points), absmax)


def _spread(absmax: NDArray, block: int, count: int) -> NDArray:
    """(N,): each block's number at all of its places."""
    return np.repeat(absmax, min(block, count))[:count]


def dequantize_dynamic(codes: NDArray, *, absmax: NDArray, block: int = 256) -> NDArray:
    """x[i] = absmax of i's block · map[code[i]].

    Parameters
    ----------
    codes : (N,)            bytes of quantize_dynamic
    absmax : (⌈N/block⌉,)   float32 or float64, used in float32
    block : int

    Returns
    -------
    x : (N,) float32

    Raises
    ------
    ValueError   if absmax has not the length that codes and block ask for, or codes are not uint8

    Examples
    --------
    >>> dequantize_dynamic(np.array([255, 0, 127], dtype=np.uint8), absmax=np.array([2], dtype=np.float32)).round(4)
    array([ 2.    , -1.9859,  0.    ], dtype=float32)
    """
    return _dequantize("dequantize_dynamic", codes, absmax, block)


def _dequantize(who: str, codes: NDArray, absmax: NDArray, block: int) -> NDArray:
    size(who, block=block)
    given(who, codes=codes, absmax=absmax)
    exact_rank(who, 1, codes=codes)
    of_dtype(who, "uint8", codes=codes)
    floats(who, absmax=absmax)
    same_shape(who, (-(-codes.size // block),), absmax=absmax)
    return _MAP.take(codes) * _spread(absmax.astype(np.float32, copy=False), block, codes.size)


def double_quantize(absmax: NDArray, *, block: int = 256) -> DoubleQuantized:
    """offset = mean(absmax),  codes, absmax = quantize_dynamic(absmax − offset).

    The scales of a 4-bit tensor are 32 bits for 64 weights, half a bit each; after this they are 8 bits and little more, 0.127 of a bit.
    They are all positive and much alike, and only what tells them apart is worth the sign and the resolution around 0 that the codes have.

    Parameters
    ----------
    absmax : (N,)   scales, float32 or float64; float64 is rounded to float32 first
    block : int     how many scales share one scale of their own

    Returns
    -------
    codes : (N,) uint8
    absmax : (⌈N/block⌉,) float32   of absmax − offset
    offset : () float32             summed in float64 and rounded once; 0 where there is no scale

    Raises
    ------
    ValueError   if absmax holds NaN or what is beyond float32's range, has not one axis, or block is not a positive integer

    Examples
    --------
    >>> codes, absmax, offset = double_quantize(np.array([1.0, 2.0, 3.0]))
    >>> codes, absmax, offset
    (array([  0, 131, 255], dtype=uint8), array([1.], dtype=float32), array(2., dtype=float32))
    """
    given("double_quantize", absmax=absmax)
    floats("double_quantize", absmax=absmax)
    exact_rank("double_quantize", 1, absmax=absmax)
    size("double_quantize", block=block)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = absmax.astype(np.float32, copy=False)
        offset = np.asarray(scales.sum(dtype=np.float64) / max(scales.size, 1), dtype=np.float32)
        left = scales - offset
    demand("double_quantize", bool(np.isfinite(left).all()), "absmax, with and without its mean, finite in float32", absmax=absmax)
    return DoubleQuantized(*_quantize(left, block), offset)


def double_dequantize(codes: NDArray, *, absmax: NDArray, offset: NDArray, block: int = 256) -> NDArray:
    """absmax of the 4-bit blocks = dequantize_dynamic(codes, absmax) + offset.

    Parameters
    ----------
    codes : (N,)            of double_quantize
    absmax : (⌈N/block⌉,)   of double_quantize
    offset : ()             of double_quantize
    block : int

    Returns
    -------
    absmax : (N,) float32

    Raises
    ------
    ValueError   as dequantize_dynamic; if offset is not of shape ()

    Examples
    --------
    >>> codes, absmax, offset = double_quantize(np.array([1.0, 2.0, 3.0]))
    >>> double_dequantize(codes, absmax=absmax, offset=offset).round(4)
    array([1.007, 2.   , 3.   ], dtype=float32)
    """
    given("double_dequantize", codes=codes, absmax=absmax, offset=offset)
    floats("double_dequantize", absmax=absmax, offset=offset)
    same_shape("double_dequantize", (), offset=offset)
    return _dequantize("double_dequantize", codes, absmax, block) + offset.astype(np.float32, copy=False)


_MAP = dynamic_map()
_GRID = 2 * np.arange(65536, dtype=np.float32) / np.float32(65535) - 1
_NEAREST = np.searchsorted((_MAP[:-1] + _MAP[1:]) / 2, _GRID).astype(np.uint8)   # the code of each point of the grid, the lower at a tie
