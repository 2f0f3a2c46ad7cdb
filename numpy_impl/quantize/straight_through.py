"""Training through a rounding: the straight-through estimator (Bengio, Léonard & Courville 2013, arXiv:1308.3432).

A rounding is constant between its jumps, so its derivative is 0 and nothing would be learnt. The estimator lets the gradient through as
if nothing had been rounded, wherever the codes reach: the numbers behind the codes are trained, and the codes follow.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import axis_of, choice, demand, floats, ids_below, in_range, integers, same_shape, size
from numpy_impl.ops._blocks import blocks


def fake_quantize(x: NDArray, *, scale: NDArray, zero_point: NDArray | None = None, bits: int = 8, signed: bool = True,
                  axis: int | None = None) -> tuple[NDArray, Callable]:
    """y = (clip(q, low, high) − zero_point) · scale,  with  q = round(x / scale) + zero_point:  quantized, and back.

    Parameters
    ----------
    x : (...)                    what is trained, float32 or float64
    scale : () or (x.shape[axis],)   the step between two codes, above 0, in x's dtype
    zero_point : as scale        integers, the code of 0; None is 0
    bits : int                   of a code, from 2 to 16
    signed : bool                codes from low = −2ᵇⁱᵗˢ⁻¹ to high = 2ᵇⁱᵗˢ⁻¹ − 1, or from 0 to 2ᵇⁱᵗˢ − 1
    axis : int                   whose entries have a scale each (0 for the rows of a weight); None is one scale for everything

    Returns
    -------
    y : (...)   numbers that codes stand for; halves round to the even code
    backward : dy (...) -> dx (...) = dy where low ≤ q ≤ high, and 0 where x is beyond the codes: there y does not move with x

    Raises
    ------
    ValueError   if scale or zero_point is of another shape, a scale is not above 0 or so small that its reciprocal overflows, a zero
                 point is no code, or bits or axis is out of range

    Examples
    --------
    >>> y, backward = fake_quantize(np.array([0.3, 0.4, 9.0]), scale=np.array(0.25), bits=4)
    >>> y, backward(np.ones(3))
    (array([0.25, 0.5 , 1.75]), array([1., 1., 0.]))
    """
    floats("fake_quantize", x=x, scale=scale)
    integers("fake_quantize", zero_point=zero_point)
    low, high = _codes("fake_quantize", bits, signed)
    rows, spread, _ = _rows("fake_quantize", x, axis, scale=scale, zero_point=zero_point)
    _check_steps("fake_quantize", scale)
    ids_below("fake_quantize", high + 1, at_least=low, zero_point=zero_point)

    each, steps = spread(scale), spread(1 / scale)                            # (R, 1)
    zero = spread(np.zeros_like(scale) if zero_point is None else zero_point.astype(x.dtype))
    shape, y, inside = x.shape, np.empty(rows.shape, x.dtype), np.empty(rows.shape, bool)
    for piece in blocks(*rows.shape):
        q = np.rint(_beyond(np.multiply, rows[piece], steps[piece]))
        q += zero[piece]
        np.logical_and(q >= low, q <= high, out=inside[piece])
        np.clip(q, low, high, out=q)
        q -= zero[piece]
        np.multiply(q, each[piece], out=y[piece])

    def backward(dy):
        return (dy.reshape(inside.shape) * inside).reshape(shape)

    return y.reshape(shape), backward


def learned_step_quantize(x: NDArray, scale: NDArray, *, bits: int = 8, signed: bool = True, axis: int | None = None,
                          scaled_gradient: bool = True) -> tuple[NDArray, Callable]:
    """y = round(clip(v, low, high)) · scale,  with  v = x / scale:  the step between two codes is trained as well.

    Parameters
    ----------
    x : (...)                    what is quantized, float32 or float64
    scale : () or (x.shape[axis],)   the step, above 0, trained; `learned_step_start` says where it begins
    bits, signed, axis           as in `fake_quantize`
    scaled_gradient : bool       divide the step's gradient by √(N · high), N numbers sharing it: it is a sum over so many, and
                                 weights and steps then move at like rates

    Returns
    -------
    y : (...)
    backward : dy (...) -> dx (...), dscale () or (x.shape[axis],)

    Raises
    ------
    ValueError   if scale is of another shape, not above 0 or so small that its reciprocal overflows, or bits or axis is out of range

    Source: learned step size quantization, Esser, McKinstry, Bablani, Appuswamy & Modha 2020, arXiv:1902.08153, equations 1 to 5.

    Examples
    --------
    >>> y, backward = learned_step_quantize(np.array([0.3, 0.4, 9.0]), np.array(0.25), bits=4, scaled_gradient=False)
    >>> dx, dscale = backward(np.ones(3))
    >>> y, dx, round(float(dscale), 4)
    (array([0.25, 0.5 , 1.75]), array([1., 1., 0.]), 7.2)
    """
    floats("learned_step_quantize", x=x, scale=scale)
    low, high = _codes("learned_step_quantize", bits, signed)
    choice("learned_step_quantize", (False, True), scaled_gradient=scaled_gradient)
    rows, spread, gather = _rows("learned_step_quantize", x, axis, scale=scale)
    _check_steps("learned_step_quantize", scale)
    each = spread(scale)                                                      # (R, 1)
    y = np.empty(rows.shape, x.dtype)
    for piece in blocks(*rows.shape):
        codes = _beyond(np.divide, rows[piece], each[piece])
        np.clip(codes, low, high, out=codes)
        np.rint(codes, out=codes)
        np.multiply(codes, each[piece], out=y[piece])
    factor = 1 / math.sqrt(_sharing(x, scale) * high) if scaled_gradient else 1.0

    def backward(dy):
        # y = r(v) s with v = x / s and, by the estimator, r′ = 1 inside the range and 0 outside:
        #     dx = dy · r′;   ds = Σ dy · (r + s r′ ∂v/∂s) = Σ dy · (r − r′ v),
        # inside the distance to the code, outside the code itself, low or high.
        drows = dy.reshape(rows.shape)
        dx, of_rows = np.empty(rows.shape, x.dtype), np.empty(len(rows), x.dtype)
        for piece in blocks(*rows.shape):
            v = _beyond(np.divide, rows[piece], each[piece])
            inside = (low < v) & (v < high)
            np.multiply(drows[piece], inside, out=dx[piece])
            slope = np.rint(np.clip(v, low, high)) - np.where(inside, v, 0)
            of_rows[piece] = np.vecdot(drows[piece], slope)
        return dx.reshape(x.shape), gather(factor * of_rows)

    return y.reshape(x.shape), backward


def learned_step_start(x: NDArray, *, bits: int = 8, signed: bool = True, axis: int | None = None) -> NDArray:
    """scale = 2 · mean|x| / √high,  the step that `learned_step_quantize` begins with.

    Parameters
    ----------
    x : (...)             what will be quantized, float32 or float64, finite
    bits, signed, axis    as in `fake_quantize`

    Returns
    -------
    scale : () or (x.shape[axis],)   1 where the mean is 0: of nothing but zeros, or of nothing

    Raises
    ------
    ValueError   if x or the sum of its magnitudes is not finite, or bits or axis is out of range

    Source: Esser et al. 2020, arXiv:1902.08153, section 2.1.

    Examples
    --------
    >>> learned_step_start(np.array([[1.0, -3.0], [0.0, 0.0]]), bits=3, signed=False, axis=0).round(4)
    array([1.5119, 1.    ])
    """
    floats("learned_step_start", x=x)
    _, high = _codes("learned_step_start", bits, signed)
    rows, _, gather = _rows("learned_step_start", x, axis)
    with np.errstate(over="ignore"):
        total = gather(np.abs(rows).sum(1))
    demand("learned_step_start", bool(np.isfinite(total).all()), "x and the sum of its magnitudes finite", x=x)
    step = total * (2 / (math.sqrt(high) * _sharing(x, total)))
    return np.where(step > 0, step, np.ones_like(step))


def _codes(function: str, bits: int, signed: bool) -> tuple[int, int]:
    """The lowest and the highest code."""
    size(function, bits=bits)
    in_range(function, 2, 16, bits=bits)
    choice(function, (False, True), signed=signed)
    return (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _check_steps(function: str, scale: NDArray) -> None:
    with np.errstate(divide="ignore", over="ignore"):
        fits = (scale > 0) & (scale < math.inf) & (1 / scale < math.inf)
    demand(function, bool(fits.all()), "every scale, and its reciprocal, > 0 and finite", scale=scale)


def _beyond(ufunc: np.ufunc, x: NDArray, y: NDArray) -> NDArray:
    """ufunc(x, y), which may well be infinite: so far beyond the codes, the last one is right."""
    with np.errstate(over="ignore"):
        return ufunc(x, y)


def _sharing(x: NDArray, scale: NDArray) -> int:
    """How many numbers share a scale; 1 if there are none, which saves a division by 0."""
    return max(x.size // max(scale.size, 1), 1)


def _rows(function: str, x: NDArray, axis: int | None, **scales: NDArray | None) -> tuple[NDArray, Callable, Callable]:
    """x as a matrix (R, W) whose rows have one scale each.

    And how to hand out what belongs to a scale to its rows, () or (C,) -> (R, 1), and to sum what belongs to rows, (R,) -> () or (C,).
    """
    if axis is None:
        shape, lead = (), x.shape[:-1]
        outer, count, inner = math.prod(lead), 1, math.prod(x.shape[len(lead):])
    else:
        axis = axis_of(function, x.ndim, axis)
        shape = x.shape[axis:axis + 1]
        outer, count, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:])
    same_shape(function, shape, **scales)

    def spread(scale):
        return np.broadcast_to(scale.reshape(-1), (outer, count)).reshape(outer * count, 1)

    def gather(of_rows):
        # A sum along memory is pairwise, and keeps seven digits where one across it adds up thousands of roundings.
        return of_rows.reshape(outer, count).T.copy().sum(1).reshape(shape)

    return x.reshape(outer * count, inner), spread, gather
