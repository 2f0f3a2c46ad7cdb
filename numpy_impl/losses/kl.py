"""Kullback–Leibler divergences between two distributions that are given by their logits."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, demand, floats, same_shape
from numpy_impl.ops._blocks import blocks


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
    backward : dloss () -> dlogits (..., V), dtarget_logits (..., V)   kept from the forward where dloss is 1: not to be written into

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
    loss, dlogits, dtarget_logits = _kl(logits, target_logits, mask)
    return loss, lambda dloss: _times(dloss, dlogits, dtarget_logits)


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
    loss, dtarget_logits, dlogits = _kl(target_logits, logits, mask)
    return loss, lambda dloss: _times(dloss, dlogits, dtarget_logits)


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
    forward, dlogits, dtarget_logits = _kl(logits, target_logits, mask)
    reverse, dtarget_logits_too, dlogits_too = _kl(target_logits, logits, mask)
    for grad, grad_too in ((dlogits, dlogits_too), (dtarget_logits, dtarget_logits_too)):
        grad += grad_too
        grad /= 2
    return np.asarray((forward + reverse) / 2), lambda dloss: _times(dloss, dlogits, dtarget_logits)


def _kl(logits, target_logits, mask):
    """mean KL(p ‖ q), and its gradients, formed while a block of p and q is in the cache: keeping those for later takes longer."""
    shape, v = logits.shape, logits.shape[-1]
    n = math.prod(shape[:-1])
    logits, target_logits = logits.reshape(n, v), target_logits.reshape(n, v)
    counted = np.ones(n, bool) if mask is None else mask.reshape(n)
    m = logits.dtype.type(counted.sum())
    scale = np.where(counted, 1 / m, 0)[:, None]                             # (N, 1)
    kl, dlogits, dtarget_logits = np.empty((n, 1), logits.dtype), np.empty_like(logits), np.empty_like(logits)
    for rows in blocks(n, v):
        (p, logp), (q, logq) = _softmax(target_logits[rows]), _softmax(logits[rows])
        gap = np.subtract(logp, logq, out=logp)
        kl[rows] = np.vecdot(p, gap)[:, None]
        # log q enters once, weighted by −p, and the softmax brings − q · Σ(−p) = q:       dlogits = q − p
        # p is a weight and stands inside the logarithm; the latter's part is Σ p · ∂log p = 0. Through the softmax's Jacobian
        # the weights' part gives                                                          dtarget_logits = p · (gap − KL)
        q -= p
        np.multiply(q, scale[rows], out=dlogits[rows])
        gap -= kl[rows]
        gap *= p
        np.multiply(gap, scale[rows], out=dtarget_logits[rows])
    loss = np.asarray(np.where(counted, kl[:, 0], 0).sum() / m)
    return loss, dlogits.reshape(shape), dtarget_logits.reshape(shape)


def _softmax(logits):
    """softmax(logits) and its logarithm."""
    logp = logits - logits.max(1, keepdims=True)
    p = np.exp(logp)
    total = p.sum(1, keepdims=True)                                          # in pairs: a product would lose digits of a small KL
    p /= total
    logp -= np.log(total)
    return p, logp


def _times(dloss, *grads):
    """The gradients for this dloss. What follows a loss is mostly nothing, and then it is 1 and they are there already."""
    return grads if dloss == 1 else tuple(grad * dloss for grad in grads)


def _check(function, logits, target_logits, mask):
    floats(function, logits=logits, target_logits=target_logits)
    at_least_rank(function, 1, logits=logits)
    demand(function, logits.shape[-1] > 0, "logits of at least one class", logits=logits)
    same_shape(function, logits.shape, target_logits=target_logits)
    booleans(function, mask=mask)
    same_shape(function, logits.shape[:-1], mask=mask)
