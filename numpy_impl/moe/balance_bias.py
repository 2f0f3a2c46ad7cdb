"""Balance without a loss (Wang et al. 2024, arXiv:2408.15664): a bias on each expert, moved by a fixed step towards even use."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import exact_rank, floats, given, integers, not_negative, same_shape


def balance_bias(bias: NDArray, *, counts: NDArray, rate: float) -> NDArray:
    """bias + rate · sign(mean(counts) − counts):  what was chosen less than the mean is raised, what was chosen more is lowered.

    The `router` adds the bias to its scores to choose by, and weighs with the scores alone: balancing disturbs no gradient.

    Parameters
    ----------
    bias : (E,)         float32 or float64, one an expert; begins at 0
    counts : (E,)       integers, how many tokens of the last batch chose each expert
    rate : float ≥ 0    the step, 0.001 in DeepSeek-V3

    Returns
    -------
    bias : (E,)   a new array; no gradient

    Raises
    ------
    ValueError   if counts is not E integers, or rate is negative or not finite

    Examples
    --------
    >>> balance_bias(np.zeros(4), counts=np.array([9, 1, 4, 2]), rate=0.5)
    array([-0.5,  0.5,  0. ,  0.5])
    """
    floats("balance_bias", bias=bias)
    exact_rank("balance_bias", 1, bias=bias)
    given("balance_bias", counts=counts)
    integers("balance_bias", counts=counts)
    same_shape("balance_bias", bias.shape, counts=counts)
    not_negative("balance_bias", rate=rate)
    # mean < count where sum < E · count: in integers, no mean is rounded and an even count is seen to be even.
    n = counts.astype(np.int64)
    return bias + rate * np.sign(n.sum() - len(n) * n).astype(bias.dtype)
