"""Patches of an image as tokens (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1), in the two forms that are in use."""

from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, per_axis, same_shape
from numpy_impl.ops.conv import conv2d


def patch_embedding(
    images: NDArray, weight: NDArray, bias: NDArray | None = None, *, patch: int | tuple[int, int]
) -> tuple[NDArray, Callable]:
    """y[b, n] = W · (patch n of image b, flattened) + bias,  patches counted row by row.

    Parameters
    ----------
    images : (B, C, H, W)      float32 or float64
    weight : (D, C, ph, pw)    in the shape that a convolution has; flattened it is the W above
    bias : (D,)
    patch : int or (int, int)  height ph and width pw of a patch, in pixels

    Returns
    -------
    y : (B, N, D)              N = H/ph · W/pw
    backward : dy (B, N, D) -> dimages (B, C, H, W), dweight (D, C, ph, pw), dbias (D,) or None

    Raises
    ------
    ValueError   if patches do not divide the images, or shapes or dtypes do not fit

    Examples
    --------
    >>> import numpy as np
    >>> images = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, backward = patch_embedding(images, np.ones((1, 1, 2, 2)), patch=2)
    >>> y.ravel()                                    # the sums of the four patches
    array([10., 18., 42., 50.])
    """
    b, d, c, rows, cols, ph, pw = _sizes("patch_embedding", images, weight, bias, patch)

    # (B, C, rows, ph, cols, pw): an axis for which patch, and one for where in it, along both sides. Then what says which comes first.
    tokens = images.reshape(b, c, rows, ph, cols, pw).transpose(0, 2, 4, 1, 3, 5).reshape(b * rows * cols, c * ph * pw)     # (B·N, C·ph·pw)
    matrix = weight.reshape(d, c * ph * pw)                                                                             # (D, C·ph·pw)
    y = tokens @ matrix.T                                                                                                 # (B·N, D)
    if bias is not None:
        y += bias

    def backward(dy):
        dy = dy.reshape(b * rows * cols, d)
        dimages = (dy @ matrix).reshape(b, rows, cols, c, ph, pw).transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)
        return dimages, (dy.T @ tokens).reshape(weight.shape), None if bias is None else dy.sum(0)

    return y.reshape(b, rows * cols, d), backward


def patch_embedding_conv(
    images: NDArray, weight: NDArray, bias: NDArray | None = None, *, patch: int | tuple[int, int]
) -> tuple[NDArray, Callable]:
    """y[b, n] = conv2d(images, weight, bias, stride=patch)[b, :, n],  positions n counted row by row: equal to `patch_embedding`.

    A kernel that moves by its own size sees every patch once.

    Parameters
    ----------
    images : (B, C, H, W)      float32 or float64
    weight : (D, C, ph, pw)
    bias : (D,)
    patch : int or (int, int)  height ph and width pw of a patch, in pixels

    Returns
    -------
    y : (B, N, D)              N = H/ph · W/pw
    backward : dy (B, N, D) -> dimages (B, C, H, W), dweight (D, C, ph, pw), dbias (D,) or None

    Raises
    ------
    ValueError   if patches do not divide the images, or shapes or dtypes do not fit

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = patch_embedding_conv(np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 2, 2)), patch=2)
    >>> y.ravel()
    array([10., 18., 42., 50.])
    """
    b, d, _, rows, cols, ph, pw = _sizes("patch_embedding_conv", images, weight, bias, patch)
    y, conv_backward = conv2d(images, weight, bias, stride=(ph, pw))          # (B, D, rows, cols)

    def backward(dy):
        return conv_backward(dy.swapaxes(1, 2).reshape(y.shape))

    return y.reshape(b, d, rows * cols).swapaxes(1, 2), backward


def _sizes(who: str, images: NDArray, weight: NDArray, bias: NDArray | None, patch: int | tuple[int, int]) -> tuple[int, ...]:
    """(B, D, C, rows of patches, columns of patches, ph, pw), once everything fits."""
    floats(who, images=images, weight=weight, bias=bias)
    exact_rank(who, 4, images=images, weight=weight)
    ph, pw = per_axis(who, 2, patch=patch)
    b, c, h, w = images.shape
    d = weight.shape[0]
    same_shape(who, (d, c, ph, pw), weight=weight)
    same_shape(who, (d,), bias=bias)
    demand(who, 0 not in (*weight.shape, h, w), "images and weight without empty axes, B excepted", images=images, weight=weight)
    demand(who, h % ph == 0 and w % pw == 0, "images that patches divide", images=images, patch=(ph, pw))
    return b, d, c, h // ph, w // pw, ph, pw
