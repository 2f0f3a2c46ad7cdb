"""Mean squared error."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, floats, same_shape


def mse(prediction: NDArray, target: NDArray, *, reduction: Literal["mean", "sum", "none"] = "mean") -> tuple[NDArray, Callable]:
    """loss = mean (prediction − target)².

    Parameters
    ----------
    prediction : (...,)   float32 or float64
    target : (...,)       of the same shape: nothing is broadcast
    reduction : str       "mean" or "sum" over all entries, or "none"

    Returns
    -------
    loss : () or, with "none", (...,); the mean over no entries is NaN
    backward : dloss -> dprediction (...,), dtarget (...,)

    Raises
    ------
    ValueError   if the shapes differ, reduction is none of the three, or a dtype differs

    Examples
    --------
    >>> loss, backward = mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> loss
    array(2.)
    >>> backward(np.array(1.0))
    (array([ 0., -2.]), array([-0.,  2.]))
    """
    floats("mse", prediction=prediction, target=target)
    same_shape("mse", prediction.shape, target=target)
    choice("mse", ("mean", "sum", "none"), reduction=reduction)

    error = prediction - target
    loss = np.asarray(error * error)
    n = error.size if reduction == "mean" else 1
    if reduction != "none":
        loss = np.asarray(loss.sum() / n)

    def backward(dloss):
        dprediction = 2 * (dloss / n) * error
        return np.asarray(dprediction), np.asarray(-dprediction)

    return loss, backward
