"""Binary cross-entropy of probabilities (labels) against logits."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import broadcastable, choice, floats, same_shape
from numpy_impl.ops._blocks import blocks


def bce_with_logits(
    logits: NDArray,
    targets: NDArray,
    *,
    pos_weight: NDArray | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> tuple[NDArray, Callable]:
    """loss = −w · t · log σ(x) − (1 − t) · log(1 − σ(x)),  with  x the logit and t the target of each entry.

    Parameters
    ----------
    logits : (...,)       x, float32 or float64
    targets : (...,)      t, the probability that the entry is positive: a label, or anything between 0 and 1
    pos_weight : (...,)   w, what a positive entry counts for, broadcast to the logits' shape; None for 1
    reduction : str       "mean" or "sum" over all entries, or "none"

    Returns
    -------
    loss : () or, with "none", (...,); the mean over no entries is NaN
    backward : dloss -> dlogits (...,), dtargets (...,)

    Raises
    ------
    ValueError   if logits and targets differ in shape, pos_weight does not broadcast, reduction is none of the three, or a dtype differs

    Examples
    --------
    >>> loss, backward = bce_with_logits(np.array([0.0, np.log(3.0)]), np.array([1.0, 0.0]))
    >>> round(float(loss), 4)
    1.0397
    >>> backward(np.array(1.0))[0]
    array([-0.25 ,  0.375])
    """
    floats("bce_with_logits", logits=logits, targets=targets, pos_weight=pos_weight)
    same_shape("bce_with_logits", logits.shape, targets=targets)
    broadcastable("bce_with_logits", logits.shape, pos_weight=pos_weight)
    choice("bce_with_logits", ("mean", "sum", "none"), reduction=reduction)

    # With 1 − σ(x) = exp(−x) · σ(x):  −log σ(x) = softplus(−x)  and  −log(1 − σ(x)) = x + softplus(−x), so
    #     loss = (1 − t) · x + (1 + (w − 1) · t) · softplus(−x)
    # where no exp overflows in  softplus(−x) = log(1 + exp(−|x|)) − min(x, 0).
    shape, x, t = logits.shape, logits.reshape(-1), targets.reshape(-1)
    w = None if pos_weight is None else np.broadcast_to(pos_weight, shape).reshape(-1)

    def softplus_and_factor(i):
        """softplus(−x) and what it is multiplied by, for the entries i."""
        softplus = -np.abs(x[i])
        np.exp(softplus, out=softplus)
        np.log1p(softplus, out=softplus)
        softplus -= np.minimum(x[i], 0)
        return softplus, 1 if w is None else 1 + (w[i] - 1) * t[i]

    loss = np.empty_like(x)
    for i in blocks(x.size):
        softplus, factor = softplus_and_factor(i)
        np.multiply(1 - t[i], x[i], out=loss[i])
        softplus *= factor
        loss[i] += softplus
    n = x.size if reduction == "mean" else 1
    loss = loss.reshape(shape) if reduction == "none" else np.asarray(loss.sum() / n)

    def backward(dloss):
        dlogits, dtargets = np.empty_like(x), np.empty_like(x)
        share = np.reshape(dloss, -1) / n                           # one for each entry, or for all
        for i in blocks(x.size):
            softplus, factor = softplus_and_factor(i)
            dx = np.exp(-softplus)                                  # σ(x)
            dx -= 1                                                 # softplus(−x) has the derivative −σ(−x) = σ(x) − 1
            dx *= factor
            dx += 1 - t[i]
            dt = np.negative(x[i]) if w is None else (w[i] - 1) * softplus - x[i]
            dshare = share[i] if reduction == "none" else share
            np.multiply(dx, dshare, out=dlogits[i])
            np.multiply(dt, dshare, out=dtargets[i])
        return dlogits.reshape(shape), dtargets.reshape(shape)

    return loss, backward
