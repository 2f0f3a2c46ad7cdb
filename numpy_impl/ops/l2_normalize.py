"""Scaling vectors to unit length, for cosine similarities and contrastive losses."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, axis_of, floats, positive


def l2_normalize(x: NDArray, *, axis: int = -1, eps: float = 1e-12) -> tuple[NDArray, Callable]:
    """y = x / max(‖x‖, ε),  with  ‖x‖ = √(Σ x²)  along one axis.

    Parameters
    ----------
    x : (..., D, ...)   vectors that lie along `axis`, float32 or float64
    axis : int          which axis
    eps : float         ε > 0; shorter vectors are divided by ε instead of their length, so that zero stays zero

    Returns
    -------
    y : (..., D, ...)
    backward : dy (..., D, ...) -> dx (..., D, ...)

    Raises
    ------
    ValueError   if x has no such axis, eps is not positive, or x is not float32 or float64

    Examples
    --------
    >>> y, backward = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    >>> y
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    floats("l2_normalize", x=x)
    at_least_rank("l2_normalize", 1, x=x)
    axis = axis_of("l2_normalize", x.ndim, axis)
    positive("l2_normalize", eps=eps)

    norm = np.sqrt(np.expand_dims(np.vecdot(x, x, axis=axis), axis))    # (..., 1, ...)
    length = np.maximum(norm, eps)
    y = x / length

    def backward(dy):
        # Along y itself the length undoes any change, so that component of dy comes off: dx = (dy − y · Σ(dy · y)) / ‖x‖.
        # Where ε took over, the divisor is a constant and nothing comes off.
        along = np.expand_dims(np.vecdot(dy, y, axis=axis), axis)
        dx = y * np.where(length == norm, along, 0)
        np.subtract(dy, dx, out=dx)
        dx /= length
        return dx

    return y, backward
