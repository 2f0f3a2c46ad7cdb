"""The z-loss alone: a pull on the normaliser of the softmax towards 1."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, demand, floats, same_shape


def z_loss(logits: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = Σ lse² / M,  with  lse = log Σ_c exp(logits_c)  for each of M positions.

    Softmax is blind to a constant added to all logits of a position; this loss is not, and keeps them from drifting.

    Parameters
    ----------
    logits : (..., V)   float32 or float64
    mask : (...,)       booleans, True where the position counts; None: all of them

    Returns
    -------
    loss : ()   NaN if no position counts
    backward : dloss () -> dlogits (..., V)

    Raises
    ------
    ValueError   if V is 0, mask is not a boolean array of shape (...,), or logits are not float32 or float64

    References
    ----------
    Chowdhery et al. 2022, arXiv:2204.02311, section 5 (with a factor of 1e-4); Zoph et al. 2022, arXiv:2202.08906 (for routers)

    Examples
    --------
    >>> loss, backward = z_loss(np.array([[0.0, 0.0], [1.0, 1.0]]))
    >>> round(float(loss), 4)
    1.6736
    """
    floats("z_loss", logits=logits)
    at_least_rank("z_loss", 1, logits=logits)
    demand("z_loss", logits.shape[-1] > 0, "logits of at least one class", logits=logits)
    booleans("z_loss", mask=mask)
    same_shape("z_loss", logits.shape[:-1], mask=mask)

    counted = np.ones(logits.shape[:-1], bool) if mask is None else mask            # (...,)
    top = np.nan_to_num(logits.max(-1, keepdims=True))                              # finite, so that there is no ∞ − ∞
    exp = np.exp(logits - top)
    total = exp.sum(-1, keepdims=True)
    lse = np.log(total) + top                                                       # (..., 1)
    m = logits.dtype.type(counted.sum())
    loss = np.asarray(np.where(counted, (lse * lse)[..., 0], 0).sum() / m)

    def backward(dloss):
        # ∂lse/∂logits_j = exp(logits_j − lse) = softmax(logits)_j
        dlse = np.where(counted[..., None], 2 * lse * (dloss / m), 0)               # (..., 1)
        return exp * (dlse / total)

    return loss, backward
