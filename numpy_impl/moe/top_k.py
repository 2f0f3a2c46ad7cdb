"""The k largest scores of each token, in an order that does not depend on the machine: how a router chooses its experts."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, not_nan, size


def top_k(scores: NDArray, *, k: int) -> NDArray:
    """idsⱼ = the expert with the j-th largest score, j = 0 … k − 1;  of equal scores the lower expert comes first.

    Parameters
    ----------
    scores : (..., E)   float32 or float64, of E experts; −∞ stands behind everything else
    k : int             how many are chosen, in [1, E]

    Returns
    -------
    ids : (..., k) int64   distinct, best first. No gradient: the choice jumps where two scores change places and is constant elsewhere

    Raises
    ------
    ValueError   if k is below 1 or above E, a score is NaN, or scores is not float32 or float64

    Examples
    --------
    >>> top_k(np.array([[0.1, 0.5, 0.2, 0.5], [3.0, 3.0, 3.0, 3.0]]), k=2)
    array([[1, 3],
           [0, 1]])
    """
    floats("top_k", scores=scores)
    at_least_rank("top_k", 1, scores=scores)
    size("top_k", k=k)
    demand("top_k", k <= scores.shape[-1], "k of at most the number of experts", k=k, scores=scores)
    not_nan("top_k", scores=scores)
    # A stable sort leaves equals as they stand, the lower expert first; turned round (argsort(scores)[::-1]) the higher would come first.
    return np.argsort(-scores, -1, kind="stable")[..., :k]
