"""Top-k: only the k most probable tokens may be drawn (Fan, Lewis & Dauphin 2018, arXiv:1805.04833, section 5.1)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import size
from numpy_impl.decode._rows import best, largest


def keep_top_k(logits: NDArray, *, k: int) -> NDArray:
    """yᵢ = logitsᵢ for the k largest,  −∞ for all others;  exactly k are kept, of equal logits the lower ids.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    k : int             at least 1; all are kept if it exceeds V

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if k is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    >>> keep_top_k(np.array([0.0, 2.0, 1.0, 1.0]), k=2)
    array([-inf,   2.,   1., -inf])
    """
    size("keep_top_k", k=k)
    largest("keep_top_k", logits)
    return np.where(best(logits, k), logits, -np.inf)
