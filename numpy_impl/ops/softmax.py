"""Softmax, its logarithm, and the log-sum-exp they share: along any axis, with a mask, softmax and its logarithm at any temperature."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, axis_of, booleans, broadcastable, floats, positive
from numpy_impl.ops._blocks import blocks


def softmax(x: NDArray, *, axis: int = -1, mask: NDArray | None = None, temperature: float = 1.0) -> tuple[NDArray, Callable]:
    """yᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)  along an axis,  with  z = x / temperature  where the mask keeps and −∞ where it drops.

    Parameters
    ----------
    x : any shape of at least one axis, float32 or float64   logits
    axis : int                                               the axis along which y sums to 1
    mask : broadcasts to x                                   booleans, True where an entry takes part; None keeps all
    temperature : float > 0

    Returns
    -------
    y : like x   0 where the mask drops, even if it drops everything along the axis
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no such axis, mask is not boolean or does not broadcast to x, or temperature ≤ 0

    Examples
    --------
    >>> y, backward = softmax(np.array([0.0, np.log(3.0), 5.0]), mask=np.array([True, True, False]))
    >>> y.round(4)
    array([0.25, 0.75, 0.  ])
    >>> backward(np.array([1.0, 0.0, 2.0])).round(4)
    array([ 0.1875, -0.1875,  0.    ])
    """
    axis = _checked("softmax", x, axis, mask)
    positive("softmax", temperature=temperature)
    shape, x3, keep = x.shape, _around(x, axis), _mask_around(mask, x.shape, axis)    # (before, D, after)
    y = np.empty_like(x3)
    for part, some, kept in _parts(x3, keep):
        z, top = _logits(some, kept, temperature)
        e = np.exp(z - top, out=y[part])                         # y does not see a shift, and no exponential exceeds 1
        e /= _total(e)
        if kept is not None:
            np.copyto(e, 0, where=~kept)

    def backward(dy):
        # ∂yᵢ/∂zⱼ = yᵢ (δᵢⱼ − yⱼ), so dzⱼ = Σᵢ dyᵢ ∂yᵢ/∂zⱼ = yⱼ (dyⱼ − Σᵢ yᵢ dyᵢ). Where the mask drops, y = 0 makes it 0.
        dx = np.empty_like(y)
        for part, some, _ in _parts(_around(dy, axis)):
            np.multiply(y[part], some, out=dx[part])
            np.subtract(some, _total(dx[part]), out=dx[part])
            dx[part] *= y[part]
            if temperature != 1:
                dx[part] /= temperature
        return dx.reshape(shape)

    return y.reshape(shape), backward


def log_softmax(x: NDArray, *, axis: int = -1, mask: NDArray | None = None, temperature: float = 1.0) -> tuple[NDArray, Callable]:
    """yᵢ = zᵢ − log Σⱼ exp(zⱼ)  along an axis,  with  z = x / temperature  where the mask keeps and −∞ where it drops.

    Parameters
    ----------
    x : any shape of at least one axis, float32 or float64   logits
    axis : int                                               the axis along which exp(y) sums to 1
    mask : broadcasts to x                                   booleans, True where an entry takes part; None keeps all
    temperature : float > 0

    Returns
    -------
    y : like x   the constant −∞ where the mask drops, even if it drops everything along the axis
    backward : dy -> dx   the entries of dy that the mask drops are ignored: constants have no gradient

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no such axis, mask is not boolean or does not broadcast to x, or temperature ≤ 0

    Examples
    --------
    >>> y, backward = log_softmax(np.array([0.0, np.log(3.0)]))
    >>> np.exp(y).round(4)
    array([0.25, 0.75])
    >>> backward(np.array([1.0, 0.0])).round(4)
    array([ 0.75, -0.75])
    """
    axis = _checked("log_softmax", x, axis, mask)
    positive("log_softmax", temperature=temperature)
    shape, x3, keep = x.shape, _around(x, axis), _mask_around(mask, x.shape, axis)    # (before, D, after)
    y = np.empty_like(x3)
    for part, some, kept in _parts(x3, keep):
        z, top = _logits(some, kept, temperature)
        z = np.subtract(z, top, out=y[part])                     # y does not see a shift, and no exponential exceeds 1
        z -= np.log(_total(np.exp(z)))
        if kept is not None:
            np.copyto(z, -np.inf, where=~kept)

    def backward(dy):
        # ∂yᵢ/∂zⱼ = δᵢⱼ − softmaxⱼ, so dzⱼ = dyⱼ − softmaxⱼ Σᵢ dyᵢ, and exp(y) is the softmax.
        dx = np.empty_like(y)
        for part, some, kept in _parts(_around(dy, axis), keep):
            some = some if kept is None else np.where(kept, some, 0)
            np.exp(y[part], out=dx[part])
            dx[part] *= _total(some)
            np.subtract(some, dx[part], out=dx[part])
            if temperature != 1:
                dx[part] /= temperature
        return dx.reshape(shape)

    return y.reshape(shape), backward


def logsumexp(x: NDArray, *, axis: int = -1, mask: NDArray | None = None, keepdims: bool = False) -> tuple[NDArray, Callable]:
    """y = log Σⱼ exp(xⱼ)  along an axis, over the entries that the mask keeps.

    Parameters
    ----------
    x : any shape of at least one axis, float32 or float64
    axis : int               the axis that is summed
    mask : broadcasts to x   booleans, True where an entry takes part; None keeps all
    keepdims : bool          whether the axis stays, with size 1

    Returns
    -------
    y : x's shape without the axis   −∞ where the mask keeps nothing
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no such axis, or mask is not boolean or does not broadcast to x

    Examples
    --------
    >>> y, backward = logsumexp(np.array([[1000.0, 1000.0], [0.0, -np.inf]]))
    >>> y.round(4)
    array([1000.6931,    0.    ])
    >>> backward(np.ones(2)).round(4)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    axis = _checked("logsumexp", x, axis, mask)
    shape, x3, keep = x.shape, _around(x, axis), _mask_around(mask, x.shape, axis)    # (before, D, after)
    y, largest = np.empty((len(x3), 1, x3.shape[2]), x.dtype), np.finfo(x.dtype).max
    for part, some, kept in _parts(x3, keep):
        z = some if kept is None else np.where(kept, some, -np.inf)
        top = np.clip(z.max(1, keepdims=True, initial=-np.inf), -largest, largest)   # finite: ∞ − ∞ would be NaN
        y[part] = top + np.log(_total(np.exp(z - top)))

    def backward(dy):
        # ∂y/∂xⱼ = exp(xⱼ) / Σ exp = exp(xⱼ − y): the softmax.
        dy = dy.reshape(y.shape)
        dx = np.empty_like(x3)
        for part, some, kept in _parts(x3, keep):
            np.subtract(some, y[part], out=dx[part])
            if kept is not None:
                np.copyto(dx[part], -np.inf, where=~kept)
            np.exp(dx[part], out=dx[part])
            dx[part] *= dy[part]
        return dx.reshape(shape)

    out = shape[:axis] + (1,) * keepdims + shape[axis + 1:]
    return y.reshape(out), backward


def _checked(name: str, x: NDArray, axis: int, mask: NDArray | None) -> int:
    floats(name, x=x)
    at_least_rank(name, 1, x=x)
    axis = axis_of(name, x.ndim, axis)
    booleans(name, mask=mask)
    broadcastable(name, x.shape, mask=mask)
    return axis


def _logits(x: NDArray, kept: NDArray | None, temperature: float) -> tuple[NDArray, NDArray]:
    """(z, its maximum along the axis); z may be x itself.

    Where there is nothing but −∞ the maximum is taken to be finite: −∞ − −∞ would be NaN.
    """
    z = x if temperature == 1 else x / temperature
    if kept is not None:
        z = np.where(kept, z, -np.inf)
    return z, z.max(1, keepdims=True, initial=-np.finfo(x.dtype).max)


def _total(x: NDArray) -> NDArray:
    """The sum along the axis, which stays with size 1: as a product it takes half the time of x.sum(1)."""
    return np.ones((1, x.shape[1]), x.dtype) @ x


def _parts(x3: NDArray, keep: NDArray | None = None) -> Iterator[tuple[slice, NDArray, NDArray | None]]:
    """(which part, x there, the mask there), a cacheful at a time; ∞ and NaN are values meanwhile and raise no warning."""
    before, size, after = x3.shape
    with np.errstate(all="ignore"):
        for part in blocks(before, size * after):
            yield part, x3[part], None if keep is None else keep[part]


def _around(x: NDArray, axis: int) -> NDArray:
    """x with three axes: all that come before the one of the softmax, that one, and all that come after it."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:]))


def _mask_around(mask: NDArray | None, shape: tuple[int, ...], axis: int) -> NDArray | None:
    return None if mask is None else _around(np.broadcast_to(mask, shape), axis)
