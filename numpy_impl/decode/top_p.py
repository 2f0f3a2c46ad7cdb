"""Top-p or nucleus: only the fewest tokens that hold a share p of the probability (Holtzman et al. 2020, arXiv:1904.09751)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from numpy_impl.decode._rows import first_of_equals, largest


def keep_top_p(logits: NDArray, *, p: float, minimum: int = 1) -> NDArray:
    """yᵢ = logitsᵢ for the fewest most probable tokens with Σ softmax(logits) ≥ p,  −∞ for all others;  of equal logits the lower ids.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    p : float           in (0, 1]; 1 keeps everything
    minimum : int       as many of the best are kept whatever their probabilities

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if p is not in (0, 1], minimum is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    >>> keep_top_p(np.log([0.1, 0.2, 0.3, 0.4]), p=0.6).round(2)
    array([ -inf,  -inf, -1.2 , -0.92])
    """
    in_range("keep_top_p", 0, 1, p=p)
    demand("keep_top_p", p > 0, "p > 0", p=p)
    size("keep_top_p", minimum=minimum)
    top = largest("keep_top_p", logits)
    if p == 1:
        return logits
    # Counted from the other end: the least probable tokens are dropped for as long as what is dropped is at most 1 − p. The small ones
    # are summed first, and in float64, so that the sum does not depend on who computes it.
    rising = np.sort(logits, -1)                                                    # (..., V)
    mass = np.exp(rising - top).cumsum(-1, dtype=np.float64)
    dropped = np.count_nonzero(mass <= (1 - p) * mass[..., -1:], axis=-1, keepdims=True)
    dropped = np.minimum(dropped, max(logits.shape[-1] - minimum, 0))
    bound = np.take_along_axis(rising, dropped, -1)                                 # (..., 1)
    return np.where(first_of_equals(logits, bound, logits.shape[-1] - dropped), logits, -np.inf)
