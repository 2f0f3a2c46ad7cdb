"""Top-p or nucleus: only the fewest tokens that hold a share p of the probability (Holtzman et al. 2020, arXiv:1904.09751)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from numpy_impl.decode._rows import best, first_of_equals, largest


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
        return logits.copy()
    total = np.exp(logits - top).sum(-1, keepdims=True, dtype=np.float64)           # (..., 1), at least 1
    # Tokens of less than (1 − p) / V of the best one's probability hold less than 1 − p together: none is kept, and none need be sorted.
    likely = logits >= top + math.log((1 - p) / logits.shape[-1])
    counts = np.count_nonzero(likely, axis=-1)[..., None]
    most = int(counts.max(initial=1))
    rising = np.full((*logits.shape[:-1], most), -np.inf, logits.dtype)             # with −∞ where a row has fewer
    rising[np.arange(most) < counts] = logits[likely]
    rising.sort(-1)
    # Of these the least probable go for as long as all that goes is at most 1 − p. The small ones are summed first, and in float64, so
    # that the sum does not depend on who computes it.
    mass = np.exp(rising - top).cumsum(-1, dtype=np.float64)
    rest = total - mass[..., -1:]
    dropped = np.count_nonzero(rest + mass <= (1 - p) * total, axis=-1, keepdims=True)
    dropped = np.minimum(dropped, most - 1)
    keep = first_of_equals(logits, np.take_along_axis(rising, dropped, -1), most - dropped)
    if minimum > 1:
        keep |= best(logits, minimum)
    return np.where(keep, logits, -np.inf)
