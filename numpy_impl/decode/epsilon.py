"""Epsilon and eta sampling: only tokens above a fixed probability, or one that follows the entropy (Hewitt, Manning & Liang 2022,
arXiv:2210.15191)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from numpy_impl.decode._rows import best, largest


def keep_epsilon(logits: NDArray, *, epsilon: float, minimum: int = 1) -> NDArray:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ ε,  −∞ elsewhere.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    epsilon : float     ε in (0, 1)
    minimum : int       as many of the best are kept whatever their probabilities, of equal logits the lower ids

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if ε is not in (0, 1), minimum is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    >>> keep_epsilon(np.log([0.1, 0.2, 0.7]), epsilon=0.15).round(2)
    array([ -inf, -1.61, -0.36])
    """
    z, log_total = _checked("keep_epsilon", logits, epsilon, minimum)
    return np.where((z >= log_total + math.log(epsilon)) | best(logits, minimum), logits, -np.inf)


def keep_eta(logits: NDArray, *, epsilon: float, minimum: int = 1) -> NDArray:
    """yᵢ = logitsᵢ where softmax(logits)ᵢ ≥ min(ε, √ε · exp(−H)),  −∞ elsewhere;  H is the entropy of softmax(logits).

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what is excluded already
    epsilon : float     ε in (0, 1)
    minimum : int       as many of the best are kept whatever their probabilities, of equal logits the lower ids

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if ε is not in (0, 1), minimum is below 1, or a row of logits has NaN, +∞ or nothing but −∞

    Examples
    --------
    The more uncertain the model, the smaller the bound: √0.3 · exp(−1.35) is 0.14 here.

    >>> keep_eta(np.log([0.15, 0.25, 0.25, 0.3, 0.05]), epsilon=0.3).round(2)
    array([-1.9 , -1.39, -1.39, -1.2 ,  -inf])
    """
    z, log_total = _checked("keep_eta", logits, epsilon, minimum)
    # −log pᵢ = log Σ e − zᵢ, so H = log Σ e − Σ p z. What is excluded has p = 0, and adds 0 · −∞ to the sum: 0.
    expected = (np.exp(z - log_total) * np.maximum(z, np.finfo(z.dtype).min)).sum(-1, keepdims=True)
    log_eta = np.minimum(math.log(epsilon), 0.5 * math.log(epsilon) - (log_total - expected))
    return np.where((z >= log_total + log_eta) | best(logits, minimum), logits, -np.inf)


def _checked(function: str, logits: NDArray, epsilon: float, minimum: int) -> tuple[NDArray, NDArray]:
    """z = logits − their maximum (..., V), and log Σ exp(z) (..., 1): log p = z − log Σ exp(z)."""
    in_range(function, 0, 1, epsilon=epsilon)
    demand(function, 0 < epsilon < 1, "0 < epsilon < 1", epsilon=epsilon)
    size(function, minimum=minimum)
    z = logits - largest(function, logits)
    return z, np.log(np.exp(z).sum(-1, keepdims=True))
