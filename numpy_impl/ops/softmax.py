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
    >>> backward(np.array([1.0, 0.0, 0.0])).round(4)
    array([ 0.1875, -0.1875, -0.    ])
    """
    axis = _checked("softmax", x, axis, mask)
    positive("softmax", temperature=temperature)
    shape, rows, keep = x.shape, _rows(x, axis), _mask_rows(mask, x.shape, axis)      # (N, D)
    y = np.empty_like(rows)
    for part, some, kept in _parts(rows, keep):
        e = np.exp(_shifted(some, kept, temperature))
        e /= e.sum(1, keepdims=True)
        y[part] = e if kept is None else np.where(kept, e, 0)

    def backward(dy):
        # ∂yᵢ/∂zⱼ = yᵢ (δᵢⱼ − yⱼ), so dzⱼ = Σᵢ dyᵢ ∂yᵢ/∂zⱼ = yⱼ (dyⱼ − Σᵢ yᵢ dyᵢ). Where the mask drops, y = 0 makes it 0.
        dy = _rows(dy, axis)
        dx = np.empty_like(y)
        for part in blocks(*y.shape):
            np.subtract(dy[part], np.vecdot(y[part], dy[part])[:, None], out=dx[part])
            dx[part] *= y[part]
            dx[part] /= temperature
        return _unrows(dx, shape, axis)

    return _unrows(y, shape, axis), backward


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
    shape, rows, keep = x.shape, _rows(x, axis), _mask_rows(mask, x.shape, axis)      # (N, D)
    y = np.empty_like(rows)
    for part, some, kept in _parts(rows, keep):
        z = _shifted(some, kept, temperature)
        z -= np.log(np.exp(z).sum(1, keepdims=True))
        y[part] = z if kept is None else np.where(kept, z, -np.inf)

    def backward(dy):
        # ∂yᵢ/∂zⱼ = δᵢⱼ − softmaxⱼ, so dzⱼ = dyⱼ − softmaxⱼ Σᵢ dyᵢ, and exp(y) is the softmax.
        dy = _rows(dy, axis)
        dx = np.empty_like(y)
        for part, some, kept in _parts(dy, keep):
            some = some if kept is None else np.where(kept, some, 0)
            np.exp(y[part], out=dx[part])
            dx[part] *= -some.sum(1, keepdims=True)
            dx[part] += some
            dx[part] /= temperature
        return _unrows(dx, shape, axis)

    return _unrows(y, shape, axis), backward


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
    shape, rows, keep = x.shape, _rows(x, axis), _mask_rows(mask, x.shape, axis)      # (N, D)
    y, largest = np.empty((len(rows), 1), x.dtype), np.finfo(x.dtype).max
    for part, some, kept in _parts(rows, keep):
        z = some if kept is None else np.where(kept, some, -np.inf)
        top = np.clip(z.max(1, keepdims=True, initial=-np.inf), -largest, largest)   # finite: ∞ − ∞ would be NaN
        y[part] = top + np.log(np.exp(z - top).sum(1, keepdims=True))

    def backward(dy):
        # ∂y/∂xⱼ = exp(xⱼ) / Σ exp = exp(xⱼ − y): the softmax.
        dy = dy.reshape(y.shape)
        dx = np.empty_like(rows)
        for part, some, kept in _parts(rows, keep):
            np.subtract(some, y[part], out=dx[part])
            if kept is not None:
                np.copyto(dx[part], -np.inf, where=~kept)
            np.exp(dx[part], out=dx[part])
            dx[part] *= dy[part]
        return _unrows(dx, shape, axis)

    out = shape[:axis] + (1,) * keepdims + shape[axis + 1:]
    return y.reshape(out), backward


def _checked(name: str, x: NDArray, axis: int, mask: NDArray | None) -> int:
    floats(name, x=x)
    at_least_rank(name, 1, x=x)
    axis = axis_of(name, x.ndim, axis)
    booleans(name, mask=mask)
    broadcastable(name, x.shape, mask=mask)
    return axis


def _shifted(x: NDArray, kept: NDArray | None, temperature: float) -> NDArray:
    """z less its row's maximum, which softmax does not see, and so that no exponential exceeds 1.

    The maximum of a row of nothing but −∞ is taken to be finite: −∞ − −∞ would be NaN.
    """
    z = x / temperature
    if kept is not None:
        z = np.where(kept, z, -np.inf)
    z -= z.max(1, keepdims=True, initial=-np.finfo(x.dtype).max)
    return z


def _parts(rows: NDArray, keep: NDArray | None) -> Iterator[tuple[slice, NDArray, NDArray | None]]:
    """(which rows, the rows, their mask), a cacheful at a time; ∞ and NaN are values meanwhile and raise no warning."""
    with np.errstate(all="ignore"):
        for part in blocks(*rows.shape):
            yield part, rows[part], None if keep is None else keep[part]


def _rows(x: NDArray, axis: int) -> NDArray:
    """x as a matrix whose rows run along the axis."""
    x = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _mask_rows(mask: NDArray | None, shape: tuple[int, ...], axis: int) -> NDArray | None:
    return None if mask is None else _rows(np.broadcast_to(mask, shape), axis)


def _unrows(rows: NDArray, shape: tuple[int, ...], axis: int) -> NDArray:
    """What _rows undid: the matrix in the given shape."""
    others = shape[:axis] + shape[axis + 1:]
    return np.moveaxis(rows.reshape(*others, shape[axis]), -1, axis)
