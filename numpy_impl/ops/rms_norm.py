"""Root-mean-square normalization (Zhang & Sennrich 2019, arXiv:1910.07467)."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, not_negative, same_shape
from numpy_impl.ops._blocks import blocks
from numpy_impl.ops._outer import column, row


def rms_norm(x: NDArray, weight: NDArray | None = None, *, eps: float = 1e-6, unit_offset: bool = False) -> tuple[NDArray, Callable]:
    """y = weight · x̂,  with  x̂ = x / √(mean(x²) + ε)  over the last axis.

    Parameters
    ----------
    x : (..., D)       activations, float32 or float64
    weight : (D,)      scale, or None for 1
    eps : float        ε ≥ 0, added to the mean square inside the root
    unit_offset : bool   scale by 1 + weight instead, so that a weight of zero (where weight decay pulls it) changes nothing

    Returns
    -------
    y : (..., D)
    backward : dy (..., D) -> dx (..., D), dweight (D,) or None

    Raises
    ------
    ValueError   if weight is not of shape (D,), D is 0, eps < 0, or an array is not float32 or float64

    Examples
    --------
    >>> y, backward = rms_norm(np.array([[3.0, 4.0]]), eps=0.0)
    >>> y.round(4)
    array([[0.8485, 1.1314]])
    >>> y, backward = rms_norm(np.array([[3.0, 4.0]]), np.array([0.0, 1.0]), eps=0.0, unit_offset=True)
    >>> y.round(4)
    array([[0.8485, 2.2627]])
    """
    floats("rms_norm", x=x, weight=weight)
    at_least_rank("rms_norm", 1, x=x)
    demand("rms_norm", x.shape[-1] > 0, "x with a last axis of at least one entry", x=x)
    same_shape("rms_norm", x.shape[-1:], weight=weight)
    not_negative("rms_norm", eps=eps)

    shape, d = x.shape, x.shape[-1]
    n = math.prod(shape[:-1])
    x = x.reshape(n, d)                                                # (N, D)
    if weight is None:
        scale = row(np.ones(d, x.dtype))
    else:
        scale = row(weight + 1 if unit_offset else weight)
    y, rstd = np.empty(x.shape, x.dtype), np.empty(n, x.dtype)
    for rows in blocks(n, d):
        part = x[rows]
        rstd[rows] = 1 / np.sqrt(np.vecdot(part, part) / d + eps)      # 1 / √(mean(x²) + ε)
        out = np.matmul(column(rstd[rows]), scale, out=y[rows])        # weight / √(mean(x²) + ε)
        out *= part                                                    # weight · x̂

    def backward(dy):
        # √(mean(x²) + ε) depends on every entry of the row, so the component of dx̂ = dy · scale along x̂ comes off:
        #     dx = (dx̂ − x̂ · mean(dx̂ · x̂)) / √(mean(x²) + ε)
        # That mean is a matrix-vector product: mean(dx̂ · x̂) = (dy · x̂) @ (scale / D).
        # x̂ itself is never made: it is x times a number per row.
        dy = dy.reshape(n, d)
        share, flat = scale[0] / d, row(np.ones(d, x.dtype))           # column(a) @ flat is a spread over rows: a in all D columns
        dx, dscale = np.empty(x.shape, x.dtype), np.zeros(d, x.dtype)
        for rows in blocks(n, d):
            part, g, r = x[rows], dy[rows], rstd[rows]
            product = g * part                                         # dy · x̂, but for a factor r
            dscale += r @ product
            along = r * (product @ share)                              # mean(dx̂ · x̂)
            out = np.matmul(column(r), scale, out=dx[rows])
            out *= g                                                   # dx̂ / √(mean(x²) + ε)
            np.matmul(column(r * (r * along)), flat, out=product)
            product *= part                                            # r · x̂ · mean(dx̂ · x̂)
            out -= product
        return dx.reshape(shape), None if weight is None else dscale

    return y.reshape(shape), backward
