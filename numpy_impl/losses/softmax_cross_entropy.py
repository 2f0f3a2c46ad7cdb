"""Softmax and cross-entropy fused: the gradient is formed where the loss is, while the row is still in the cache."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, ids_below, integers, positive, same_shape
from numpy_impl.ops._blocks import blocks


def softmax_cross_entropy(
    logits: NDArray, *, targets: NDArray, ignore_index: int = -100, normalizer: float | None = None
) -> tuple[NDArray, Callable]:
    """loss = −Σ log p_t / M,  with  p = softmax(logits),  t the token's target and M the number of tokens that count.

    The plain form, with every option, is `cross_entropy`; this one passes over the logits once and holds nothing but their gradient.

    Parameters
    ----------
    logits : (..., V)    float32 or float64
    targets : (...,)     class ids in [0, V), or ignore_index
    ignore_index : int   a target of this value does not count: no loss, no gradient
    normalizer : float   divide by this instead of M: the count of a whole batch, when only a part of it is at hand

    Returns
    -------
    loss : ()   NaN if no token counts and no normalizer is given
    backward : dloss () -> dlogits (..., V)   kept from the forward where dloss is 1: not to be written into

    Raises
    ------
    ValueError   if shapes do not fit, V is 0, a target is out of range, normalizer is not positive, or logits are not float32 or float64

    Examples
    --------
    >>> loss, backward = softmax_cross_entropy(np.array([[0.0, 0.0], [0.0, np.log(3.0)]]), targets=np.array([0, 1]))
    >>> round(float(loss), 4)
    0.4904
    >>> backward(np.array(1.0))
    array([[-0.25 ,  0.25 ],
           [ 0.125, -0.125]])
    """
    floats("softmax_cross_entropy", logits=logits)
    at_least_rank("softmax_cross_entropy", 1, logits=logits)
    v = logits.shape[-1]
    demand("softmax_cross_entropy", v > 0, "logits of at least one class", logits=logits)
    integers("softmax_cross_entropy", targets=targets)
    same_shape("softmax_cross_entropy", logits.shape[:-1], targets=targets)
    counted = (targets != ignore_index).reshape(-1)                    # (N,)
    targets = np.where(counted, targets.reshape(-1), 0)                # (N,)
    ids_below("softmax_cross_entropy", v, targets=targets)
    if normalizer is not None:
        positive("softmax_cross_entropy", normalizer=normalizer)

    shape = logits.shape
    m = logits.dtype.type(normalizer or counted.sum())
    losses, dlogits = _losses(logits.reshape(targets.size, v), targets, np.where(counted, 1 / m, 0))
    loss = np.asarray(np.where(counted, losses, 0).sum() / m)

    def backward(dloss):
        # dlogits is the gradient of the loss already; what follows a loss is mostly nothing, and then dloss is 1.
        return (dlogits if dloss == 1 else dlogits * dloss).reshape(shape)

    return loss, backward


def _losses(logits, targets, scale, overwrite=False):
    """−log p_t for each row (N,), and their gradient (N, V) with row n times scale_n; it may take the place of the logits."""
    n, v = logits.shape
    each, ones = np.arange(n), np.ones(v, logits.dtype)
    at_target, top, total = logits[each, targets], np.empty(n, logits.dtype), np.empty(n, logits.dtype)
    dlogits = logits if overwrite else np.empty_like(logits)
    for rows in blocks(n, v):
        logits[rows].max(1, out=top[rows])                             # taken off, so that exp cannot overflow
        # dlogits is not in the cache yet: the slow exp goes on while its memory is fetched, a subtraction would wait.
        exp = np.exp(logits[rows] - top[rows, None], out=dlogits[rows])
        np.matmul(exp, ones, out=total[rows])                          # the sum of each row, faster than exp.sum(1)
        # With x = logits − top, ∂(−log p_t)/∂logits_j = exp(x_j) / Σ exp(x) − [j = t]
        exp *= (scale[rows] / total[rows])[:, None]
    dlogits[each, targets] -= scale
    return np.log(total) - (at_target - top), dlogits                  # −log p_t = log Σ exp(x) − x_t
