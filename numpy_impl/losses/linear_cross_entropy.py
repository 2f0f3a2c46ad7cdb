"""A projection to the vocabulary and its cross-entropy, chunk by chunk, so that all logits together never exist; also where the
projection is not trained."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, exact_rank, floats, ids_below, integers, positive, same_shape, size
from numpy_impl.losses.softmax_cross_entropy import _losses


def linear_cross_entropy(
    hidden: NDArray, weight: NDArray, *, targets: NDArray, ignore_index: int = -100, normalizer: float | None = None, chunk: int = 512
) -> tuple[NDArray, Callable]:
    """loss = −Σ log p_t / M,  with  p = softmax(hidden @ weightᵀ),  t the token's target and M the number of tokens that count.

    What softmax_cross_entropy says of linear's logits. With 32,000 classes the logits of 8,192 tokens fill a gigabyte, and so does
    their gradient. Here only `chunk` rows of them exist at a time: each chunk's gradients of hidden and weight are formed at once, in
    the forward, and all that the backward has left to do is multiply them by dloss.

    Parameters
    ----------
    hidden : (..., D)    float32 or float64
    weight : (V, D)      one row a class
    targets : (...,)     class ids in [0, V), or ignore_index
    ignore_index : int   a target of this value does not count: no loss, no gradient
    normalizer : float   divide by this instead of M: the count of a whole batch, when only a part of it is at hand
    chunk : int          tokens at a time; the result does not depend on it

    Returns
    -------
    loss : ()   NaN if no token counts and no normalizer is given
    backward : dloss () -> dhidden (..., D), dweight (V, D)

    Raises
    ------
    ValueError   if shapes do not fit, V is 0, a target is out of range, normalizer or chunk is not positive, or a dtype differs

    Examples
    --------
    >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 2.0]]), np.eye(2)
    >>> loss, backward = linear_cross_entropy(hidden, weight, targets=np.array([0, 1]), chunk=1)
    >>> round(float(loss), 4)
    0.2201
    >>> dhidden, dweight = backward(np.array(1.0))
    >>> dhidden.round(4)
    array([[-0.1345,  0.1345],
           [ 0.0596, -0.0596]])
    """
    loss, dhidden, dweight = _chunked("linear_cross_entropy", hidden, weight, targets, ignore_index, normalizer, chunk, trained=True)

    def backward(dloss):
        # What follows a loss is mostly nothing, and then dloss is 1 and these are the gradients already.
        return (dhidden, dweight) if dloss == 1 else (dhidden * dloss, dweight * dloss)

    return loss, backward


def frozen_linear_cross_entropy(
    hidden: NDArray, *, weight: NDArray, targets: NDArray, ignore_index: int = -100, normalizer: float | None = None, chunk: int = 512
) -> tuple[NDArray, Callable]:
    """loss = −Σ log p_t / M,  with  p = softmax(hidden @ weightᵀ)  and a weight that is not trained.

    As `linear_cross_entropy`, without dweight, whose V · D numbers are most of what that one keeps.

    Parameters
    ----------
    hidden : (..., D)    float32 or float64
    weight : (V, D)      one row a class, a constant
    targets, ignore_index, normalizer, chunk   as `linear_cross_entropy` takes them

    Returns
    -------
    loss : ()
    backward : dloss () -> dhidden (..., D)

    Raises
    ------
    ValueError   as `linear_cross_entropy` does

    Examples
    --------
    >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 2.0]]), np.eye(2)
    >>> loss, backward = frozen_linear_cross_entropy(hidden, weight=weight, targets=np.array([0, 1]))
    >>> round(float(loss), 4), backward(np.array(1.0)).round(4)[0]
    (0.2201, array([-0.1345,  0.1345]))
    """
    loss, dhidden, _ = _chunked("frozen_linear_cross_entropy", hidden, weight, targets, ignore_index, normalizer, chunk, trained=False)
    return loss, lambda dloss: dhidden if dloss == 1 else dhidden * dloss


def _chunked(
    who: str, hidden: NDArray, weight: NDArray, targets: NDArray, ignore_index: int, normalizer: float | None, chunk: int, *, trained: bool
) -> tuple[NDArray, NDArray, NDArray | None]:
    """loss (), dhidden (..., D) and, of a weight that is trained, dweight (V, D)."""
    floats(who, hidden=hidden, weight=weight)
    at_least_rank(who, 1, hidden=hidden)
    exact_rank(who, 2, weight=weight)
    demand(who, hidden.shape[-1] == weight.shape[1], "hidden and weight of one width", hidden=hidden, weight=weight)
    demand(who, weight.shape[0] > 0, "weight of at least one class", weight=weight)
    integers(who, targets=targets)
    same_shape(who, hidden.shape[:-1], targets=targets)
    counted = (targets != ignore_index).reshape(-1)                      # (N,)
    targets = np.where(counted, targets.reshape(-1), 0)                  # (N,)
    ids_below(who, len(weight), targets=targets)
    if normalizer is not None:
        positive(who, normalizer=normalizer)
    size(who, chunk=chunk)

    shape, n = hidden.shape, targets.size
    hidden = hidden.reshape(n, weight.shape[1])                          # (N, D)
    m = hidden.dtype.type(normalizer or counted.sum())
    scale = np.where(counted, 1 / m, 0)
    losses, dhidden, dweight = np.empty_like(scale), np.empty_like(hidden), None
    for start in range(0, n, chunk):
        rows = slice(start, start + chunk)
        logits = hidden[rows] @ weight.T                                 # (chunk, V)
        losses[rows], dlogits = _losses(logits, targets[rows], scale[rows], overwrite=True)
        np.matmul(dlogits, weight, out=dhidden[rows])
        if trained:
            share = dlogits.T @ hidden[rows]                             # (V, D)
            dweight = share if dweight is None else np.add(dweight, share, out=dweight)
    if trained and dweight is None:
        dweight = np.zeros_like(weight)                                  # no token at all
    loss = np.asarray(np.where(counted, losses, 0).sum() / m)
    return loss, dhidden.reshape(shape), dweight
