"""What the rules of decoding ask of rows of logits: a largest one that is finite, and which tokens are the best."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, fail, floats, not_nan


def largest(function: str, logits: NDArray, *, needs: str = "a token that is not excluded in every row") -> NDArray:
    """(..., 1): each row's largest logit, refused by name unless it is finite: the maximum sees NaN, +∞ and rows of −∞ at once."""
    floats(function, logits=logits)
    at_least_rank(function, 1, logits=logits)
    demand(function, logits.shape[-1] > 0, "at least one token", logits=logits)
    top = logits.max(-1, keepdims=True)
    if not np.isfinite(top).all():
        not_nan(function, logits=logits)
        demand(function, not np.isposinf(top).any(), "logits below infinity", logits=logits)
        fail(function, needs, f"nothing but -inf in row {int(np.isneginf(top).argmax())} of logits of shape {tuple(logits.shape)}")
    return top


def best(logits: NDArray, k: int) -> NDArray:
    """(..., V): True at the k largest logits of each row, the lower ids of equal ones."""
    k = min(int(k), logits.shape[-1])
    bound = logits.max(-1) if k == 1 else np.partition(logits, -k, -1)[..., -k]
    return first_of_equals(logits, bound[..., None], k)


def first_of_equals(values: NDArray, bound: NDArray, count: int | NDArray) -> NDArray:
    """(..., V): True at the `count` largest values of each row, the lower ids of equal ones; bound (..., 1) is the smallest of those."""
    keep = values >= bound
    surplus = np.count_nonzero(keep, axis=-1, keepdims=True) - count
    if surplus.any():
        equal = values == bound
        keep &= ~equal | (equal.cumsum(-1) <= np.count_nonzero(equal, axis=-1, keepdims=True) - surplus)
    return keep
