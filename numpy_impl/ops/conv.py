"""Convolution in one and two dimensions: windows laid out as the columns of a matrix (im2col), and one matrix product."""

import math
from collections.abc import Callable

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


def _convolve(
    who: str,
    axes: int,
    x: NDArray,
    weight: NDArray,
    bias: NDArray | None,
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
) -> tuple[NDArray, Callable]:
    """Over any number of axes; the comments say what the shapes are for two."""
    floats(who, x=x, weight=weight, bias=bias)
    exact_rank(who, 2 + axes, x=x, weight=weight)
    stride, dilation = per_axis(who, axes, stride=stride), per_axis(who, axes, dilation=dilation)
    padding = per_axis(who, axes, at_least=0, padding=padding)
    size(who, groups=groups)
    demand(who, x.shape[1] == groups * weight.shape[1], "x with groups · weight.shape[1] channels", x=x, weight=weight, groups=groups)
    demand(who, weight.shape[0] % groups == 0, "weight with the same number of outputs in every group", weight=weight, groups=groups)
    same_shape(who, weight.shape[:1], bias=bias)
    demand(who, 0 not in (*weight.shape, *x.shape[2:]), "x and weight without empty axes, N excepted", x=x, weight=weight)
    kernel = weight.shape[2:]
    room = [n + 2 * p - d * (k - 1) - 1 for n, p, d, k in zip(x.shape[2:], padding, dilation, kernel, strict=True)]
    demand(who, min(room) >= 0, "a kernel no larger than the padded x", x=x, weight=weight, padding=padding, dilation=dilation)

    n, o = x.shape[0], weight.shape[0]
    out = tuple(r // s + 1 for r, s in zip(room, stride, strict=True))                   # (H', W')
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding))) if any(padding) else x
    inside = tuple(slice(p, p + length) for p, length in zip(padding, x.shape[2:], strict=True))
    windows = _windows(padded, kernel, stride, dilation)                                 # (N, C, kh, kw, H', W')
    matrix = weight.reshape(groups, o // groups, -1)                                     # (G, O/G, K), K = C/G · kh · kw
    k, positions = matrix.shape[-1], math.prod(out)                                      # P = H' · W'

    step = max(_ENTRIES // math.prod(windows.shape[1:]), 1)
    blocks = [slice(start, start + step) for start in range(0, n, step)]

    y = np.empty((n, groups, o // groups, positions), dtype=x.dtype)                     # (N, G, O/G, P)
    for some in blocks:
        columns = windows[some].reshape(-1, groups, k, positions)                        # (n, G, K, P): here the windows are copied
        np.matmul(matrix, columns, out=y[some])
    y = y.reshape(n, o, *out)
    if bias is not None:
        y += bias.reshape(o, *(1 for _ in out))

    def backward(dy):
        # y = matrix @ columns, so dmatrix = dy @ columnsᵀ and dcolumns = matrixᵀ @ dy. Then every window gives its gradient back to the
        # pixels it was copied from. Windows overlap, but their entries (i, j) are all different pixels: one addition for each (i, j).
        dbias = None if bias is None else dy.sum((0, *range(2, dy.ndim)))
        dy = dy.reshape(n, groups, o // groups, positions)
        dmatrix, dpadded = np.zeros_like(matrix), np.zeros_like(padded)
        dwindows = _windows(dpadded, kernel, stride, dilation)                           # a view: what is added to it lands in dpadded
        for some in blocks:
            columns = windows[some].reshape(-1, groups, k, positions)                    # made again: cheaper than keeping them
            dmatrix += (columns @ dy[some].mT).sum(0).mT                                 # dy @ columnsᵀ, the way round that BLAS likes
            dcolumns = (matrix.mT @ dy[some]).reshape(windows[some].shape)
            for entry in np.ndindex(*kernel):
                dwindows[some, :, *entry] += dcolumns[:, :, *entry]
        return dpadded[:, :, *inside], dmatrix.reshape(weight.shape), dbias

    return y, backward


def _windows(padded: NDArray, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> NDArray:
    """(N, C, kh, kw, H', W'): a view in which [:, :, i, j, h, w] is padded[:, :, h·stride + i·dilation, w·stride + j·dilation]."""
    spatial = range(2, padded.ndim)
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = sliding_window_view(padded, extent, axis=tuple(spatial), writeable=True)   # (N, C, every h, every w, extents)
    windows = windows[:, :, *(slice(None, None, step) for step in (*stride, *dilation))]   # (N, C, H', W', kh, kw)
    return np.moveaxis(windows, spatial, range(-len(kernel), 0))
