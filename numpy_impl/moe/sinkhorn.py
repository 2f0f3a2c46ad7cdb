"""Sinkhorn routing: scores in which every expert gets as much as every other (Sinkhorn & Knopp 1967; for routing Clark et al. 2022,
arXiv:2202.01169)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, not_nan, size
from numpy_impl.ops.softmax import logsumexp


def sinkhorn(logits: NDArray, *, iterations: int = 8) -> tuple[NDArray, Callable]:
    """y_ne = exp(logits_ne + a_n + b_e),  with a and b such that rows sum to 1 and columns to N / E.

    From a = 0 on, each round evens out first the columns, b_e = −log Σ_n exp(logits_ne + a_n), and then the rows,
    a_n = −log Σ_e exp(logits_ne + b_e). Each undoes a little of the other; what is left of it shrinks with every round.

    Parameters
    ----------
    logits : (N, E)    float32 or float64, N tokens by E experts
    iterations : int   rounds, ≥ 1

    Returns
    -------
    y : (N, E)   rows sum to 1, columns nearly to N / E
    backward : dy (N, E) -> dlogits (N, E)   through all rounds

    Raises
    ------
    ValueError   if logits is not (N, E) of at least one expert or holds NaN, or iterations is below 1

    Examples
    --------
    >>> y, backward = sinkhorn(np.log([[4.0, 1.0], [1.0, 1.0]]))
    >>> y.round(4)
    array([[0.6667, 0.3333],
           [0.3333, 0.6667]])
    >>> backward(np.array([[1.0, 0.0], [0.0, 0.0]])).round(4)
    array([[ 0.1111, -0.1111],
           [-0.1111,  0.1111]])
    """
    floats("sinkhorn", logits=logits)
    exact_rank("sinkhorn", 2, logits=logits)
    demand("sinkhorn", logits.shape[1] > 0, "logits of at least one expert", logits=logits)
    size("sinkhorn", iterations=iterations)
    not_nan("sinkhorn", logits=logits)

    z = np.ascontiguousarray(logits.T)                           # (E, N): long rows are added up several times faster than short ones
    last = np.zeros(z.shape[1], z.dtype)
    rounds = []                                                  # vectors alone: the tables are made of them again when they are needed
    for _ in range(iterations):
        a = last                                                 # (N,)
        b = -logsumexp(z + a, keepdims=True)[0]                  # (E, 1)
        last = -logsumexp(z + b, axis=0)[0]                      # (N,)
        rounds.append((a, b, last))
    y = np.exp(z + last + b)

    def backward(dy):
        dz = dy.T * y                                            # exp is its own derivative
        da, db = dz.sum(0), dz.sum(1, keepdims=True)
        for before, b, after in rounds[::-1]:
            # The derivative of a log-sum-exp is the softmax along its axis: exp of what has just been evened out along that axis.
            by_tokens = np.exp(z + b + after) * da               # what comes through after_n = −log Σ_e exp(z + b) …
            db = db - by_tokens.sum(1, keepdims=True)
            by_experts = np.exp(z + before + b) * db            # … and on through b_e = −log Σ_n exp(z + before)
            dz = dz - by_tokens - by_experts
            da, db = -by_experts.sum(0), 0
        return dz.T

    return y.T, backward
