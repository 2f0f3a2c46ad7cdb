"""Convolution in one and two dimensions: windows laid out as the columns of a matrix (im2col), and one matrix product.

Each with a twin whose weight is not trained."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, per_axis, same_shape, size

_ENTRIES = 65536  # of the column matrix at a time, in whole samples: all of it would be larger than x by the size of the kernel


def conv1d(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> tuple[NDArray, Callable]:
    """y[n, o, t] = bias[o] + Σ_{c, i} weight[o, c, i] · x̄[n, c, t·stride + i·dilation],  x̄ being x with zeros around it.

    Parameters
    ----------
    x : (N, C, T)              float32 or float64
    weight : (O, C/groups, k)
    bias : (O,)
    stride, padding, dilation, groups : as in `conv2d`

    Returns
    -------
    y : (N, O, T')             T' = ⌊(T + 2·padding − dilation·(k − 1) − 1) / stride⌋ + 1
    backward : dy (N, O, T') -> dx (N, C, T), dweight (O, C/groups, k), dbias (O,) or None

    Raises
    ------
    ValueError   if shapes do not fit, the kernel is larger than the padded x, or an option is out of range

    Examples
    --------
    >>> y, backward = conv1d(np.array([[[1.0, 2.0, 4.0, 8.0]]]), np.array([[[-1.0, 1.0]]]))
    >>> y
    array([[[1., 2., 4.]]])
    """
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None = None,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> tuple[NDArray, Callable]:
    """y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x̄[n, c, h·stride + i·dilation, w·stride + j·dilation].

    x̄ is x with `padding` zeros on every side. (It is a correlation: the kernel is not flipped.)

    Parameters
    ----------
    x : (N, C, H, W)                float32 or float64
    weight : (O, C/groups, kh, kw)
    bias : (O,)
    stride : int or (int, int)      how far the kernel moves from one output to the next, in pixels
    padding : int or (int, int)     zeros added before and after, in pixels
    dilation : int or (int, int)    the distance of two kernel entries, in pixels
    groups : int                    the channels fall into so many groups that do not see each other; C is depthwise

    Returns
    -------
    y : (N, O, H', W')              H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1
    backward : dy (N, O, H', W') -> dx (N, C, H, W), dweight (O, C/groups, kh, kw), dbias (O,) or None

    Raises
    ------
    ValueError   if shapes do not fit, an axis other than N is empty, the kernel is larger than the padded x, or an option is out of range

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> y, backward = conv2d(x, np.ones((1, 1, 2, 2)))
    >>> y
    array([[[[ 8., 12.],
             [20., 24.]]]])
    >>> dx, dweight, dbias = backward(np.ones_like(y))
    >>> dx                               # into how many windows each pixel goes
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def frozen_conv1d(
    x: NDArray,
    bias: NDArray | None = None,
    *,
    weight: NDArray,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> tuple[NDArray, Callable]:
    """y[n, o, t] = bias[o] + Σ_{c, i} weight[o, c, i] · x̄[n, c, t·stride + i·dilation]  with a weight that is not trained.

    Arguments and errors are those of `conv1d`. backward : dy (N, O, T') -> dx (N, C, T), dbias (O,) or None

    Examples
    --------
    >>> y, backward = frozen_conv1d(np.array([[[1.0, 2.0, 4.0, 8.0]]]), weight=np.array([[[-1.0, 1.0]]]))
    >>> backward(y)
    (array([[[-1., -1., -2.,  4.]]]), None)
    """
    return _frozen("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def frozen_conv2d(
    x: NDArray,
    bias: NDArray | None = None,
    *,
    weight: NDArray,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> tuple[NDArray, Callable]:
    """y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x̄[n, c, h·stride + i·dilation, w·stride + j·dilation],  weight fixed.

    What an adapter stands on: dweight would be the one gradient that reads x, so x need not be kept until the backward.

    Arguments and errors are those of `conv2d`. backward : dy (N, O, H', W') -> dx (N, C, H, W), dbias (O,) or None

    Examples
    --------
    >>> y, backward = frozen_conv2d(np.arange(9.0).reshape(1, 1, 3, 3), weight=np.ones((1, 1, 2, 2)))
    >>> dx, dbias = backward(np.ones_like(y))
    >>> dx[0, 0]                         # into how many windows each pixel goes
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    return _frozen("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


class _Moves(NamedTuple):
    """How the kernel moves: one number for each axis, and the groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def _convolve(who: str, axes: int, x: NDArray, weight: NDArray, bias: NDArray | None, *options: Any) -> tuple[NDArray, Callable]:
    """Over any number of axes; the comments say what the shapes are for two."""
    moves = _checked(who, axes, x, weight, bias, *options)
    y = _plus_bias(_correlate(x, weight, moves), bias)

    def backward(dy):
        return _dx(dy, weight, x.shape, moves), _dweight(dy, x, weight, moves), None if bias is None else _dbias(dy)

    return y, backward


def _frozen(who: str, axes: int, x: NDArray, weight: NDArray, bias: NDArray | None, *options: Any) -> tuple[NDArray, Callable]:
    """The same without dweight, and so without x in the backward."""
    moves = _checked(who, axes, x, weight, bias, *options)
    y, shape, biased = _plus_bias(_correlate(x, weight, moves), bias), x.shape, bias is not None

    def backward(dy):
        return _dx(dy, weight, shape, moves), _dbias(dy) if biased else None

    return y, backward


def _checked(
    who: str,
    axes: int,
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None,
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> _Moves:
    floats(who, x=x, weight=weight, bias=bias)
    exact_rank(who, 2 + axes, x=x, weight=weight)
    stride, dilation = per_axis(who, axes, stride=stride), per_axis(who, axes, dilation=dilation)
    padding = per_axis(who, axes, at_least=0, padding=padding)
    size(who, groups=groups)
    demand(who, x.shape[1] == groups * weight.shape[1], "x with groups · weight.shape[1] channels", x=x, weight=weight, groups=groups)
    demand(who, weight.shape[0] % groups == 0, "weight with the same number of outputs in every group", weight=weight, groups=groups)
    same_shape(who, weight.shape[:1], bias=bias)
    demand(who, 0 not in (*weight.shape, *x.shape[2:]), "x and weight without empty axes, N excepted", x=x, weight=weight)
    fits = all(d * (k - 1) < n + 2 * p for n, p, d, k in zip(x.shape[2:], padding, dilation, weight.shape[2:], strict=True))
    demand(who, fits, "a kernel no larger than the padded x", x=x, weight=weight, padding=padding, dilation=dilation)
    return _Moves(stride, padding, dilation, groups)


def _correlate(x: NDArray, weight: NDArray, moves: _Moves) -> NDArray:
    """(N, O, H', W'): y = matrix @ columns."""
    windows, matrix = _windows(_padded(x, moves), weight.shape[2:], moves), _matrix(weight, moves)
    out = windows.shape[-len(moves.stride):]                                             # (H', W')
    y = np.empty((len(x), *matrix.shape[:2], math.prod(out)), dtype=x.dtype)             # (N, G, O/G, P)
    for some, columns in _columns(windows, moves):
        np.matmul(matrix, columns, out=y[some])
    return y.reshape(len(x), len(weight), *out)


def _dweight(dy: NDArray, x: NDArray, weight: NDArray, moves: _Moves) -> NDArray:
    """y = matrix @ columns, so dmatrix = dy @ columnsᵀ. The columns are made again: that is cheaper than keeping them."""
    dmatrix = np.zeros_like(_matrix(weight, moves))
    dy = dy.reshape(len(dy), *dmatrix.shape[:2], math.prod(dy.shape[2:]))                # (N, G, O/G, P)
    for some, columns in _columns(_windows(_padded(x, moves), weight.shape[2:], moves), moves):
        dmatrix += (columns @ dy[some].mT).sum(0).mT                                     # the way round that BLAS likes
    return dmatrix.reshape(weight.shape)


def _dx(dy: NDArray, weight: NDArray, shape: tuple[int, ...], moves: _Moves) -> NDArray:
    """(N, C, H, W), which is `shape`: for stride 1 by another convolution, else window by window."""
    (stride, padding, dilation, groups), kernel = moves, weight.shape[2:]
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    if max(stride) == 1 and all(p <= r for p, r in zip(padding, reach, strict=True)):
        # Along one axis y[t] = Σ_i w[i] x[t − padding + i·dilation], so pixel h stands in y[h + padding − i·dilation], times w[i], and
        # dx[h] = Σ_i w[i] dy[h + padding − i·dilation]. With i = k − 1 − j that is Σ_j w[k − 1 − j] dy[h − (reach − padding) + j·dilation]:
        # a convolution again, of dy, with the kernel turned around, inputs and outputs exchanged, and reach − padding zeros around.
        turned = np.flip(weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2), tuple(range(3, 3 + len(kernel))))
        turned = turned.reshape(shape[1], len(weight) // groups, *kernel)                # (C, O/G, kh, kw)
        return _correlate(dy, turned, moves._replace(padding=tuple(r - p for p, r in zip(padding, reach, strict=True))))
    # With a stride, a pixel is not in every kernel entry's reach. But y = matrix @ columns, so dcolumns = matrixᵀ @ dy, and every window
    # gives its gradient back to the pixels it was copied from. Windows overlap, but their entries (i, j) are all different pixels: one
    # addition for each (i, j).
    matrix, dx = _matrix(weight, moves), np.zeros(shape, dy.dtype)
    dpadded = _padded(dx, moves)
    dwindows = _windows(dpadded, kernel, moves)                                          # a view: what is added to it lands in dpadded
    dy = dy.reshape(len(dy), *matrix.shape[:2], math.prod(dy.shape[2:]))                 # (N, G, O/G, P)
    for some in _blocks(dwindows):
        dcolumns = (matrix.mT @ dy[some]).reshape(dwindows[some].shape)
        for entry in np.ndindex(*kernel):
            dwindows[some, :, *entry] += dcolumns[:, :, *entry]
    return dpadded[:, :, *(slice(p, p + length) for p, length in zip(padding, shape[2:], strict=True))]


def _plus_bias(y: NDArray, bias: NDArray | None) -> NDArray:
    if bias is not None:
        y += bias.reshape(len(bias), *(1 for _ in y.shape[2:]))
    return y


def _dbias(dy: NDArray) -> NDArray:
    return dy.sum((0, *range(2, dy.ndim)))


def _matrix(weight: NDArray, moves: _Moves) -> NDArray:
    """(G, O/G, K), K = C/G · kh · kw."""
    return weight.reshape(moves.groups, len(weight) // moves.groups, -1)


def _padded(x: NDArray, moves: _Moves) -> NDArray:
    """x with zeros on every side, a copy if there are any."""
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in moves.padding))) if any(moves.padding) else x


def _blocks(windows: NDArray) -> list[slice]:
    """As many samples at a time as have about _ENTRIES entries in their columns, one at least."""
    step = max(_ENTRIES // math.prod(windows.shape[1:]), 1)
    return [slice(start, start + step) for start in range(0, len(windows), step)]


def _columns(windows: NDArray, moves: _Moves) -> Iterator[tuple[slice, NDArray]]:
    """The windows as columns, (n, G, K, P) with P = H' · W', n samples at a time: here they are copied, always into the same memory."""
    memory = None
    for some in _blocks(windows):
        block = windows[some]
        memory = np.empty_like(block, order="C") if memory is None else memory[: len(block)]       # the last block may be shorter
        np.copyto(memory, block)
        yield some, memory.reshape(len(block), moves.groups, -1, math.prod(block.shape[-len(moves.stride):]))


def _windows(padded: NDArray, kernel: tuple[int, ...], moves: _Moves) -> NDArray:
    """(N, C, kh, kw, H', W'): a view in which [:, :, i, j, h, w] is padded[:, :, h·stride + i·dilation, w·stride + j·dilation]."""
    spatial = range(2, padded.ndim)
    extent = [d * (k - 1) + 1 for d, k in zip(moves.dilation, kernel, strict=True)]
    windows = sliding_window_view(padded, extent, axis=tuple(spatial), writeable=True)   # (N, C, every h, every w, extents)
    windows = windows[:, :, *(slice(None, None, step) for step in (*moves.stride, *moves.dilation))]   # (N, C, H', W', kh, kw)
    return np.moveaxis(windows, spatial, range(-len(kernel), 0))
