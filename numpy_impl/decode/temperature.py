"""Temperature: how sharp a distribution tokens are drawn from (Ackley, Hinton & Sejnowski 1985, "A learning algorithm for Boltzmann
machines", Cognitive Science 9)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import not_negative
from numpy_impl.decode._rows import largest


def temperature(logits: NDArray, *, temperature: float) -> NDArray:
    """yᵢ = logitsᵢ / T;  for T = 0, the limit, −∞ everywhere but at the largest logit, of equal ones at the lowest id.

    Where T is so small that a row's largest quotient is no finite float, yᵢ = (logitsᵢ − max logits) / T: the same distribution.

    Parameters
    ----------
    logits : (..., V)     float32 or float64, −∞ for what is excluded
    temperature : float   T ≥ 0: below 1 the likely becomes likelier, above 1 less so

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if T is negative, NaN or infinite, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    >>> temperature(np.array([1.0, 3.0, 3.0]), temperature=2.0)
    array([0.5, 1.5, 1.5])
    >>> temperature(np.array([1.0, 3.0, 3.0]), temperature=0.0)
    array([-inf,   3., -inf])
    """
    not_negative("temperature", temperature=temperature)
    top = largest("temperature", logits)
    if temperature == 0:
        at = logits.argmax(-1)[..., None]
        y = np.full_like(logits, -np.inf)
        np.put_along_axis(y, at, np.take_along_axis(logits, at, -1), -1)
        return y
    temperature = max(temperature, float(np.finfo(logits.dtype).tiny))              # below it, T would be 0 in float32
    with np.errstate(over="ignore"):
        fits = np.isfinite(top / temperature)
        return (logits if fits.all() else np.where(fits, logits, logits - top)) / temperature
