"""Kullback–Leibler divergences between two distributions that are given by their logits."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, demand, floats, same_shape


def kl_forward(logits: NDArray, target_logits: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = mean KL(p ‖ q),  KL(p ‖ q) = Σ_c p_c (log p_c − log q_c),  with  p = softmax(target_logits),  q = softmax(logits).

    The forward divergence makes the model cover everything that the target does.

    Parameters
    ----------
    logits : (..., V)          the model's, float32 or float64
    target_logits : (..., V)   the target's
    mask : (...,)              booleans, True where the position counts; None: all of them

    Returns
    -------
    loss : ()   the mean over the positions that count, in nats; NaN if there are none
    backward : dloss () -> dlogits (..., V), dtarget_logits (..., V)

    Raises
    ------
    ValueError   if the shapes differ, V is 0, mask is not a boolean array of shape (...,), or a dtype differs

    Examples
    --------
    >>> loss, backward = kl_forward(np.array([0.0, 0.0]), np.array([0.0, np.log(3.0)]))
    >>> round(float(loss), 4)
    0.1308
    >>> backward(np.array(1.0))[0]
    array([ 0.25, -0.25])
    """
    _check("kl_forward", logits, target_logits, mask)
    return _kl(logits, target_logits, mask)


def kl_reverse(logits: NDArray, target_logits: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = mean KL(q ‖ p),  KL(q ‖ p) = Σ_c q_c (log q_c − log p_c),  with  p = softmax(target_logits),  q = softmax(logits).

    The reverse divergence keeps the model away from what the target does not do. Parameters, returns and errors are `kl_forward`'s.

    Examples
    --------
    >>> loss, backward = kl_reverse(np.array([0.0, 0.0]), np.array([0.0, np.log(3.0)]))
    >>> round(float(loss), 4)
    0.1438
    """
    _check("kl_reverse", logits, target_logits, mask)
    loss, swapped_backward = _kl(target_logits, logits, mask)

    def backward(dloss):
        dtarget_logits, dlogits = swapped_backward(dloss)
        return dlogits, dtarget_logits

    return loss, backward


def kl_symmetric(logits: NDArray, target_logits: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = ½ mean (KL(p ‖ q) + KL(q ‖ p)),  with  p = softmax(target_logits),  q = softmax(logits)  (half of Jeffreys' divergence).

    Parameters, returns and errors are `kl_forward`'s.

    Examples
    --------
    >>> loss, backward = kl_symmetric(np.array([0.0, 0.0]), np.array([0.0, np.log(3.0)]))
    >>> round(float(loss), 4)
    0.1373
    """
    _check("kl_symmetric", logits, target_logits, mask)
    forward, forward_backward = _kl(logits, target_logits, mask)
    reverse, reverse_backward = _kl(target_logits, logits, mask)

    def backward(dloss):
        dlogits, dtarget_logits = forward_backward(dloss / 2)
        dtarget_logits_too, dlogits_too = reverse_backward(dloss / 2)
        return dlogits + dlogits_too, dtarget_logits + dtarget_logits_too

    return np.asarray((forward + reverse) / 2), backward


def _kl(logits, target_logits, mask):
    counted = np.ones(logits.shape[:-1], bool) if mask is None else mask     # (...,)
    m = logits.dtype.type(counted.sum())
    logp, logq = _log_softmax(target_logits), _log_softmax(logits)           # (..., V)
    p = np.exp(logp)
    gap = logp - logq
    kl = np.vecdot(p, gap)                                                   # (...,)
    loss = np.asarray(np.where(counted, kl, 0).sum() / m)

    def backward(dloss):
        # log q enters once, weighted by −p, and the softmax brings − q · Σ(−p) = q:       dlogits = q − p
        # p is a weight and stands inside the logarithm; the latter's part is Σ p · ∂log p = 0. Through the softmax's Jacobian
        # the weights' part gives                                                          dtarget_logits = p · (gap − KL)
        dkl = np.where(counted, dloss / m, 0)[..., None]                     # (..., 1)
        return (np.exp(logq) - p) * dkl, p * (gap - kl[..., None]) * dkl

    return loss, backward


def _log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def _check(function, logits, target_logits, mask):
    floats(function, logits=logits, target_logits=target_logits)
    at_least_rank(function, 1, logits=logits)
    demand(function, logits.shape[-1] > 0, "logits of at least one class", logits=logits)
    same_shape(function, logits.shape, target_logits=target_logits)
    booleans(function, mask=mask)
    same_shape(function, logits.shape[:-1], mask=mask)
