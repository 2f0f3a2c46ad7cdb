"""Locally typical sampling: only tokens about as surprising as one must expect (Meister et al. 2022, arXiv:2202.00666)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from numpy_impl.decode._rows import first_of_equals, largest


def keep_typical(logits: NDArray, *, mass: float, minimum: int = 1) -> NDArray:
    """yᵢ = logitsᵢ for the fewest tokens of least |−log pᵢ − H| with Σ p ≥ mass,  −∞ for all others;  p = softmax(logits),
    H = −Σ p log p.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    mass : float        in (0, 1]; 1 keeps everything
    minimum : int       as many are kept at least

    Returns
    -------
    y : (..., V)   of equally surprising tokens the lower ids are kept

    Raises
    ------
    ValueError   if mass is not in (0, 1], minimum is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    The entropy is 0.94, and the second token's surprise, 1.2, is nearest to it; the first is too likely to be typical.

    >>> keep_typical(np.log([0.6, 0.3, 0.05, 0.05]), mass=0.2).round(2)
    array([-inf, -1.2, -inf, -inf])
    """
    in_range("keep_typical", 0, 1, mass=mass)
    demand("keep_typical", mass > 0, "mass > 0", mass=mass)
    size("keep_typical", minimum=minimum)
    top = largest("keep_typical", logits)
    if mass == 1:
        return logits.copy()
    z = logits - top                                                                # (..., V), at most 0
    e = np.exp(z)
    total = e.sum(-1, keepdims=True)
    # −log pᵢ = log Σ e − zᵢ, so the entropy is log Σ e − Σ p z, and between the two log Σ e cancels. What is excluded adds 0 · −∞ to it: 0.
    mean = (e * np.maximum(z, np.finfo(z.dtype).min)).sum(-1, keepdims=True) / total
    near = -np.abs(z - mean)                                                        # the larger, the more typical
    order = np.argsort(near, -1)[..., ::-1]
    held = np.take_along_axis(e, order, -1).cumsum(-1, dtype=np.float64)
    kept = np.count_nonzero(held < mass * held[..., -1:], axis=-1, keepdims=True) + 1
    kept = np.minimum(np.maximum(kept, int(minimum)), logits.shape[-1])
    bound = np.take_along_axis(near, np.take_along_axis(order, kept - 1, -1), -1)   # (..., 1)
    return np.where(first_of_equals(near, bound, kept), logits, -np.inf)
