"""Eight bits a number, one scale a tensor, channel or token: around zero (absmax), or from the lowest value to the highest (zero point)."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, choice, demand, floats, given, integers, of_dtype, same_shape
from numpy_impl.ops._blocks import blocks

Per = Literal["tensor", "channel", "token"]


class Int8(NamedTuple):
    """x ≈ codes · absmax / 127."""

    codes: NDArray
    absmax: NDArray


class ZeroPoint8(NamedTuple):
    """x ≈ (codes − zero_point) · scale."""

    codes: NDArray
    scale: NDArray
    zero_point: NDArray


def quantize_int8_absmax(x: NDArray, *, per: Per = "token") -> Int8:
    """codes = round(x · 127 / absmax),  with  absmax = max|x|  over all numbers that share a scale.

    Halves are rounded to the even code. The arithmetic is float32's whatever x is, so that codes and absmax have the bits of
    bitsandbytes' `int8_vectorwise_quant` (whose rows are tokens here).

    Parameters
    ----------
    x : (...)    weights or activations, float32 or float64, finite
    per : str    what shares a scale: "tensor", everything; "channel", an entry of the first axis (a row of a weight (out, in), a filter
                 of a convolution); "token", an entry of all axes but the last (a row of activations (..., D))

    Returns
    -------
    codes : (...)                                       int8 in [−127, 127]: −128 is not used, so that −x has the codes −codes
    absmax : () , (x.shape[0],) or x.shape[:-1]         float32, by `per`

    Where 127 / absmax overflows (absmax is 0, or below 4e-37) every code is 0.

    Raises
    ------
    ValueError   if x is not finite in float32, has no axis though `per` needs one, or `per` is none of the three

    Examples
    --------
    >>> codes, absmax = quantize_int8_absmax(np.array([[0.5, -1.0, 0.25], [0.0, 30.0, 10.0]]))
    >>> codes
    array([[  64, -127,   32],
           [   0,  127,   42]], dtype=int8)
    >>> absmax
    array([ 1., 30.], dtype=float32)
    """
    rows, low, high = _rows_and_range("quantize_int8_absmax", x, per)           # (R, W), (G,), (G,)
    absmax = np.maximum(high, np.abs(low))
    steps = _spread(_steps(127, absmax), rows)                                  # (R, 1): codes per unit of x
    codes = np.empty(rows.shape, np.int8)
    for piece in blocks(*rows.shape):
        codes[piece] = np.rint(rows[piece].astype(np.float32) * steps[piece])
    return Int8(codes.reshape(x.shape), absmax.reshape(_shape_of_scales(x, per)))


def dequantize_int8_absmax(codes: NDArray, *, absmax: NDArray, per: Per = "token", dtype: DTypeLike = np.float32) -> NDArray:
    """x = codes · absmax / 127.

    Parameters
    ----------
    codes : (...)      int8
    absmax, per        as `quantize_int8_absmax` returned and took them
    dtype              of the result, float16, float32 or float64

    Returns
    -------
    x : (...)   off by at most absmax / 254 from what was quantized

    Raises
    ------
    ValueError   if codes are not int8, absmax does not have the shape that `per` asks for, or dtype is another

    Examples
    --------
    >>> dequantize_int8_absmax(np.array([[64, -127]], dtype=np.int8), absmax=np.array([1.27]))
    array([[ 0.64, -1.27]], dtype=float32)
    """
    given("dequantize_int8_absmax", codes=codes, absmax=absmax)
    of_dtype("dequantize_int8_absmax", "int8", codes=codes)
    floats("dequantize_int8_absmax", absmax=absmax)
    _check_sharing("dequantize_int8_absmax", codes, per, absmax=absmax)
    choice("dequantize_int8_absmax", ("float16", "float32", "float64"), dtype=np.dtype(dtype).name)
    rows = _rows(codes, per)
    scale = _spread(absmax.astype(dtype) / 127, rows)
    x = np.empty(rows.shape, dtype)
    for piece in blocks(*rows.shape):
        np.multiply(rows[piece], scale[piece], out=x[piece])
    return x.reshape(codes.shape)


def quantize_int8_zero_point(x: NDArray, *, per: Per = "tensor", signed: bool = False) -> ZeroPoint8:
    """codes = round(x / scale) + zero_point,  with  scale = (high − low) / 255.

    low = min(x, 0) and high = max(x, 0) over all numbers that share a scale: zero is always in the range and has a code
    of its own, zero_point = −round(low / scale), so that padding and what ReLU cut off come back as exactly 0. One-sided values (after
    ReLU, say) use all 256 codes, where absmax would leave half of them unused.

    Parameters
    ----------
    x : (...)       weights or activations, float32 or float64, finite; the arithmetic is float32's
    per : str       what shares a scale, as in `quantize_int8_absmax`
    signed : bool   codes in [−128, 127] as int8 (all of them 128 lower), not in [0, 255] as uint8

    Returns
    -------
    codes : (...)       uint8 or int8
    scale : by `per`    float32, the step between two codes
    zero_point : as scale   int32, the code of 0

    A constant c comes back as c: it is one end of the range, and 0 the other. Where 1 / scale overflows, every code is the zero point.

    Raises
    ------
    ValueError   if x is not finite in float32, has no axis though `per` needs one, or `per` is none of the three

    Examples
    --------
    >>> codes, scale, zero_point = quantize_int8_zero_point(np.array([-1.0, 0.0, 1.55]))
    >>> codes, scale, zero_point
    (array([  0, 100, 255], dtype=uint8), array(0.01, dtype=float32), array(100, dtype=int32))
    """
    choice("quantize_int8_zero_point", (False, True), signed=signed)
    rows, low, high = _rows_and_range("quantize_int8_zero_point", x, per)       # (R, W), (G,), (G,)
    scale = high / 255 - low / 255                                              # high − low itself could overflow
    steps = _steps(1, scale)                                                    # codes per unit of x
    first = -128 if signed else 0
    zero_point = first - np.rint(low * steps)                                   # low gets the first code
    each, zero = _spread(steps, rows), _spread(zero_point, rows)
    codes = np.empty(rows.shape, np.int8 if signed else np.uint8)
    for piece in blocks(*rows.shape):
        shifted = np.rint(rows[piece].astype(np.float32) * each[piece]) + zero[piece]
        # Nothing falls below the first code, but high may be rounded up where low was rounded down: from −1 and 1, which are −127.5 and
        # 127.5 steps, come the codes 0 and 256.
        codes[piece] = np.minimum(shifted, first + 255, out=shifted)
    shape = _shape_of_scales(x, per)
    return ZeroPoint8(codes.reshape(x.shape), scale.reshape(shape), zero_point.astype(np.int32).reshape(shape))


def dequantize_int8_zero_point(codes: NDArray, *, scale: NDArray, zero_point: NDArray, per: Per = "tensor",
                               dtype: DTypeLike = np.float32) -> NDArray:
    """x = (codes − zero_point) · scale.

    Parameters
    ----------
    codes : (...)            uint8 or int8
    scale, zero_point, per   as `quantize_int8_zero_point` returned and took them
    dtype                    of the result, float16, float32 or float64

    Returns
    -------
    x : (...)   off by at most scale / 2 from what was quantized, scale at the ends; 0 is exact

    Raises
    ------
    ValueError   if codes are not uint8 or int8, scale or zero_point does not have the shape that `per` asks for, or dtype is another

    Examples
    --------
    >>> codes = np.array([0, 100, 255], dtype=np.uint8)
    >>> dequantize_int8_zero_point(codes, scale=np.array(0.25), zero_point=np.array(100))
    array([-25.  ,   0.  ,  38.75], dtype=float32)
    """
    given("dequantize_int8_zero_point", codes=codes, scale=scale, zero_point=zero_point)
    of_dtype("dequantize_int8_zero_point", "uint8", "int8", codes=codes)
    floats("dequantize_int8_zero_point", scale=scale)
    integers("dequantize_int8_zero_point", zero_point=zero_point)
    _check_sharing("dequantize_int8_zero_point", codes, per, scale=scale, zero_point=zero_point)
    choice("dequantize_int8_zero_point", ("float16", "float32", "float64"), dtype=np.dtype(dtype).name)
    rows = _rows(codes, per)
    each, zero = (_spread(part.astype(dtype), rows) for part in (scale, zero_point))
    x = np.empty(rows.shape, dtype)
    for piece in blocks(*rows.shape):
        np.subtract(rows[piece], zero[piece], out=x[piece])
        x[piece] *= each[piece]
    return x.reshape(codes.shape)


def _check_sharing(function: str, x: NDArray, per: str, **scales: NDArray) -> None:
    """`per` is known, x has the axis that it needs, and every one of the scales the shape that follows."""
    choice(function, ("tensor", "channel", "token"), per=per)
    at_least_rank(function, 0 if per == "tensor" else 1, x=x)
    same_shape(function, _shape_of_scales(x, per), **scales)


def _shape_of_scales(x: NDArray, per: str) -> tuple[int, ...]:
    return {"tensor": (), "channel": x.shape[:1], "token": x.shape[:-1]}[per]


def _rows(x: NDArray, per: str) -> NDArray:
    """x as a matrix (R, W) no row of which belongs to two groups that share a scale."""
    lead, width = (x.shape[:1], x.shape[1:]) if per == "channel" else (x.shape[:-1], x.shape[-1:])
    return x.reshape(math.prod(lead), math.prod(width))


def _rows_and_range(function: str, x: NDArray, per: str) -> tuple[NDArray, NDArray, NDArray]:
    """The rows (R, W) of x, and min(x, 0) and max(x, 0) of each group in float32: (G,): a group is a row, or everything."""
    given(function, x=x)
    floats(function, x=x)
    _check_sharing(function, x, per)
    rows = _rows(x, per)
    low, high = rows.min(1, initial=0), rows.max(1, initial=0)                  # two passes, but no array of |x|
    if per == "tensor":
        low, high = np.atleast_1d(low.min(initial=0), high.max(initial=0))
    with np.errstate(over="ignore"):
        low, high = low.astype(np.float32), high.astype(np.float32)
    demand(function, bool(np.isfinite(low).all() and np.isfinite(high).all()), "x finite in float32", x=x)
    return rows, low, high


def _spread(group: NDArray, rows: NDArray) -> NDArray:
    """(G,) -> (R, 1): what each row shares with the others of its group."""
    return np.broadcast_to(group.reshape(-1, 1), (len(rows), 1))


def _steps(count: int, length: NDArray) -> NDArray:
    """count / length, codes per unit of x, and 0 where that overflows. Rounded twice, as bitsandbytes does: ties depend on it."""
    with np.errstate(divide="ignore", over="ignore"):
        steps = 1 / length * count
    return np.where(np.isfinite(steps), steps, 0)
