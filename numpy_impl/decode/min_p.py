"""Min-p: only tokens that are at least p times as probable as the best (Nguyen et al. 2024, arXiv:2407.01082)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import in_range, size
from numpy_impl.decode._rows import best, largest


def keep_min_p(logits: NDArray, *, p: float, minimum: int = 1) -> NDArray:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ p · max softmax(logits),  −∞ elsewhere.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    p : float           in [0, 1]; 0 keeps everything
    minimum : int       as many of the best are kept whatever their probabilities, of equal logits the lower ids

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if p is not in [0, 1], minimum is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    >>> keep_min_p(np.log([0.1, 0.2, 0.7]), p=0.25).round(2)
    array([ -inf, -1.61, -0.36])
    """
    in_range("keep_min_p", 0, 1, p=p)
    size("keep_min_p", minimum=minimum)
    top = largest("keep_min_p", logits)
    # The normaliser is on both sides: exp(logitsᵢ) ≥ p · exp(top), and its logarithm needs no exponentials.
    keep = logits >= top + (math.log(p) if p else -math.inf)
    if minimum > 1:
        keep |= best(logits, minimum)
    return np.where(keep, logits, -np.inf)
