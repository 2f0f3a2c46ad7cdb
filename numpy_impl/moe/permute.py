"""Dispatch: sort the choices of all tokens by expert, bring the tokens into that order, and bring the results back (Gale et al. 2022,
arXiv:2211.15841): every expert then works once, on rows that stand together, and on none that it was not chosen for."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, exact_rank, floats, ids_below, same_shape, size
from numpy_impl.moe._rows import sum_rows
from numpy_impl.ops._blocks import blocks


class Plan(NamedTuple):
    """Which token and which weight stand behind each of the M permuted rows.

    Rows of one expert stand together, experts ascending, and within one expert they are in token order.

    tokens : (M,) int64   row m is a copy of token tokens[m]
    slots : (M,) int64    and is weighed by entry slots[m] of the flattened weights
    counts : (E,) int64   how many rows each expert has; they sum to M
    """

    tokens: NDArray
    slots: NDArray
    counts: NDArray


def plan(ids: NDArray, *, experts: int, kept: NDArray | None = None) -> Plan:
    """slots = the places of ids, sorted by ids and stably so;  tokens = slots // k;  counts[e] = how many ids are e.

    Parameters
    ----------
    ids : (..., k)         the experts that each token goes to, integers in [0, experts); the leading axes are counted as one
    experts : int          E
    kept : (..., k) bool   False: this assignment is dropped and gets no row; None keeps all

    Returns
    -------
    Plan   of M rows, as many as there are kept assignments. No gradient.

    Raises
    ------
    ValueError   if an id is out of range or no integer, experts is below 1, or kept is not boolean and like ids

    Examples
    --------
    >>> tokens, slots, counts = plan(np.array([[2, 0], [0, 1], [2, 1]]), experts=4)
    >>> tokens, slots, counts
    (array([0, 1, 1, 2, 0, 2]), array([1, 2, 3, 5, 0, 4]), array([2, 2, 2, 0]))
    """
    size("plan", experts=experts)
    ids_below("plan", experts, ids=ids)
    at_least_rank("plan", 1, ids=ids)
    booleans("plan", kept=kept)
    same_shape("plan", ids.shape, kept=kept)

    chosen = ids.astype(np.int64)
    if kept is not None:
        chosen[~kept] = experts                                                     # what is dropped comes after all experts
    chosen = chosen.reshape(-1)
    counts = np.bincount(chosen, minlength=experts)[:experts]
    slots = np.argsort(chosen.astype(np.min_scalar_type(experts)), kind="stable")[:counts.sum()]   # small integers: a radix sort
    return Plan(slots // ids.shape[-1], slots, counts)


def permute(x: NDArray, *, tokens: NDArray) -> tuple[NDArray, Callable]:
    """y[m] = x[tokens[m]].

    Parameters
    ----------
    x : (N, D)      one row a token, float32 or float64
    tokens : (M,)   integers in [0, N)

    Returns
    -------
    y : (M, D)
    backward : dy (M, D) -> dx (N, D)

    Raises
    ------
    ValueError   if x is not a matrix of float32 or float64, or tokens are out of range or no integers on one axis

    Examples
    --------
    >>> y, backward = permute(np.array([[1.0, 2.0], [3.0, 4.0]]), tokens=np.array([1, 0, 1]))
    >>> y
    array([[3., 4.],
           [1., 2.],
           [3., 4.]])
    >>> backward(np.ones((3, 2)))
    array([[1., 1.],
           [2., 2.]])
    """
    floats("permute", x=x)
    exact_rank("permute", 2, x=x)
    n = len(x)
    ids_below("permute", n, tokens=tokens)
    exact_rank("permute", 1, tokens=tokens)

    def backward(dy):
        # A token that was copied to several rows receives the gradients of all its copies: dx[t] = Σ_{m: tokens[m] = t} dy[m].
        return sum_rows(dy, np.ones(len(tokens), dy.dtype), tokens, n)

    return np.take(x, tokens, axis=0), backward


def unpermute(y: NDArray, weights: NDArray, *, tokens: NDArray, n: int) -> tuple[NDArray, Callable]:
    """out[t] = Σ over the rows m with tokens[m] = t of weights[m] · y[m].

    Parameters
    ----------
    y : (M, D)       one row an assignment, float32 or float64
    weights : (M,)   what each row counts
    tokens : (M,)    integers in [0, n)
    n : int          how many tokens there are; those without a row get 0

    Returns
    -------
    out : (n, D)
    backward : dout (n, D) -> dy (M, D), dweights (M,)

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, tokens are out of range or no integers, or n is negative

    Examples
    --------
    >>> y, weights = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 1.0, 2.0])
    >>> out, backward = unpermute(y, weights, tokens=np.array([1, 0, 1]), n=3)
    >>> out
    array([[ 3. ,  4. ],
           [10.5, 13. ],
           [ 0. ,  0. ]])
    >>> backward(np.ones((3, 2)))[1]
    array([ 3.,  7., 11.])
    """
    floats("unpermute", y=y, weights=weights)
    exact_rank("unpermute", 2, y=y)
    rows, width = y.shape
    size("unpermute", at_least=0, n=n)
    ids_below("unpermute", n, tokens=tokens)
    same_shape("unpermute", (rows,), weights=weights, tokens=tokens)

    def backward(dout):
        # Row m enters one sum, as a product of two: dy[m] = weights[m] · dout[tokens[m]] and dweights[m] = y[m] · dout[tokens[m]].
        dy, dweights = np.empty(y.shape, y.dtype), np.empty(rows, y.dtype)
        for part in blocks(rows, width):
            d = np.take(dout, tokens[part], axis=0)         # (block, D), read twice while it is in the cache
            np.vecdot(y[part], d, out=dweights[part])
            np.multiply(weights[part, None], d, out=dy[part])
        return dy, dweights

    return sum_rows(y, weights, tokens, n), backward
