"""How many tokens an expert takes, and which ones they are when more would come."""

import math
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, choice, floats, given, ids_below, not_nan, positive, same_shape, size


def capacity(*, tokens: int, experts: int, k: int = 1, factor: float = 1.0, minimum: int = 1) -> int:
    """C = max(⌈k · tokens / experts · factor⌉, minimum), and never above `tokens`:  a token chooses an expert at most once.

    Parameters
    ----------
    tokens : int     that are routed together, ≥ 0
    experts : int    ≥ 1
    k : int          experts a token, ≥ 1
    factor : float   > 0; at 1 the places are as many as the choices, above 1 there is room for some imbalance
    minimum : int    ≥ 1, for small batches

    Returns
    -------
    limit : int   places an expert has, at least 1

    Raises
    ------
    ValueError   if an argument is out of its range

    Notes
    -----
    `factor` counts as the decimal number that was written: 100 tokens on 10 experts with factor 1.1 make 11 places. In binary arithmetic
    they would be 11.000000000000002, rounded up to 12.

    References
    ----------
    Lepikhin et al. 2020 (GShard), arXiv:2006.16668; Fedus, Zoph & Shazeer 2021 (Switch), arXiv:2101.03961, equation 3

    Examples
    --------
    >>> capacity(tokens=10, experts=4, k=2, factor=1.25)
    7
    >>> capacity(tokens=10, experts=4, minimum=4), capacity(tokens=3, experts=8, minimum=4)
    (4, 3)
    """
    size("capacity", at_least=0, tokens=tokens)
    size("capacity", experts=experts, k=k, minimum=minimum)
    positive("capacity", factor=factor)
    limit = math.ceil(Fraction(k * tokens, experts) * Fraction(repr(float(factor))))
    return min(max(limit, minimum), max(tokens, 1))


def within_capacity(
    ids: NDArray,
    *,
    experts: int,
    limit: int,
    order: Literal["choice", "token", "weight"] = "choice",
    weights: NDArray | None = None,
    mask: NDArray | None = None,
) -> NDArray:
    """keptₙⱼ = fewer than `limit` choices of the same expert come before choice j of token n, in the given order.

    Parameters
    ----------
    ids : (..., k)        integers, the experts that each token chose, best first
    experts : int         E
    limit : int           places an expert has, ≥ 1
    order : str           who comes first gets the place:
                          "choice"  all first choices in the order of their tokens, then all second ones, … (GShard)
                          "token"   all choices of the first token, then all of the second, …
                          "weight"  the largest weight first, equal ones as under "choice" (batch-priority routing)
    weights : (..., k)    float32 or float64, the router's weights; needed by the order "weight", without effect on the others
    mask : (...)          booleans, False where a token is padding: it takes no place and is not kept; None: there is none

    Returns
    -------
    kept : (..., k) bool   what is not kept is dropped: its expert does not see the token, and only the residual stream carries it on

    Raises
    ------
    ValueError   if limit is below 1, an id is no expert, weights are missing or hold NaN, or shapes do not fit

    References
    ----------
    Lepikhin et al. 2020 (GShard), arXiv:2006.16668; batch-priority: Riquelme et al. 2021, arXiv:2106.05974, section 4.1

    Examples
    --------
    >>> ids = np.array([[0, 1], [0, 1], [1, 0]])
    >>> within_capacity(ids, experts=2, limit=2).tolist()
    [[True, True], [True, False], [True, False]]
    >>> within_capacity(ids, experts=2, limit=2, order="token").tolist()
    [[True, True], [True, True], [False, False]]
    """
    size("within_capacity", experts=experts, limit=limit)
    choice("within_capacity", ("choice", "token", "weight"), order=order)
    ids_below("within_capacity", experts, ids=ids)
    at_least_rank("within_capacity", 1, ids=ids)
    if order == "weight":
        given("within_capacity", weights=weights)
    floats("within_capacity", weights=weights)
    same_shape("within_capacity", ids.shape, weights=weights)
    not_nan("within_capacity", weights=weights)
    booleans("within_capacity", mask=mask)
    same_shape("within_capacity", ids.shape[:-1], mask=mask)

    # Choices are numbered 0 … M − 1 as they stand in ids; `turn` lists these numbers in the order in which the choices come to their turn.
    turn = np.arange(ids.size)                                               # (M,)
    if order != "token":
        turn = np.moveaxis(turn.reshape(ids.shape), -1, 0).ravel()
    if order == "weight" and weights is not None:
        turn = turn[np.argsort(-weights.ravel()[turn], kind="stable")]
    goes = ids.astype(np.int64)
    if mask is not None:
        goes[~mask] = experts                                                # padding goes to an expert of its own, one past the last
    goes = goes.ravel()[turn]
    # A stable sort brings the choices of each expert together and leaves them in their order: a choice's place in the queue is its
    # distance from where its expert begins.
    queue = np.argsort(goes, kind="stable")                                  # (M,)
    goes = goes[queue]
    place = np.arange(ids.size) - np.searchsorted(goes, goes)                # the first entry equal to an entry is where its expert begins
    kept = np.empty(ids.size, bool)
    kept[turn[queue]] = (place < limit) & (goes < experts)
    return kept.reshape(ids.shape)
