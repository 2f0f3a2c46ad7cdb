"""Losses that keep a router from sending everything to a few experts."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, floats, given, same_shape

_TINY = 1e-20   # keeps the sum of scores that have all underflowed from being 0


def load_balance(
    scores: NDArray,
    *,
    chosen: NDArray,
    mask: NDArray | None = None,
    per_sequence: bool = False,
    renormalise: bool = False,
) -> tuple[NDArray, Callable]:
    """loss = E · Σ_e f_e · P_e,  with  f_e = the share of tokens that chose e  and  P_e = the mean score of e over the tokens.

    f sums to k, the experts a token chooses. For scores that sum to 1, the loss is k where either the choices or the scores are spread
    evenly, and above it where both lean to the same experts. (DeepSeek divides f by k, so that its losses are the k-th part of these.)

    Parameters
    ----------
    scores : (..., E)        float32 or float64, the router's scores of all experts
    chosen : (..., E)        booleans, True where the token chose the expert
    mask : (...)             booleans, False where a token is padding and does not count; None: all count
    per_sequence : bool      balance each sequence in itself: scores (..., T, E) have a loss for every T tokens, and the loss is its mean
                             over the sequences that have a token that counts
    renormalise : bool       divide each token's scores by their sum, for scores that do not sum to 1 (sigmoids)

    Returns
    -------
    loss : ()                0 if no token counts
    backward : dloss () -> dscores (..., E)   through P alone: f is made of choices, which do not move with the scores

    Raises
    ------
    ValueError   if chosen or mask is not boolean or of another shape, or scores is not float32 or float64

    References
    ----------
    Shazeer et al. 2017, arXiv:1701.06538; Fedus, Zoph & Shazeer 2021, arXiv:2101.03961, equations 4 to 6; per sequence: DeepSeek-V3 2024,
    arXiv:2412.19437, equations 17 to 20

    Examples
    --------
    >>> scores = np.array([[0.75, 0.25], [0.75, 0.25]])
    >>> loss, backward = load_balance(scores, chosen=np.array([[True, False], [True, False]]))
    >>> loss, backward(np.array(1.0))
    (array(1.5), array([[1., 0.],
           [1., 0.]]))
    >>> load_balance(scores, chosen=np.array([[True, False], [False, True]]))[0]
    array(1.)
    """
    floats("load_balance", scores=scores)
    at_least_rank("load_balance", 2 if per_sequence else 1, scores=scores)
    given("load_balance", chosen=chosen)
    booleans("load_balance", chosen=chosen, mask=mask)
    same_shape("load_balance", scores.shape, chosen=chosen)
    same_shape("load_balance", scores.shape[:-1], mask=mask)

    *lead, e = scores.shape
    s, t = (math.prod(lead[:-1]), lead[-1]) if per_sequence else (1, math.prod(lead))
    real = np.ones((s, t, 1), bool) if mask is None else mask.reshape(s, t, 1)
    p = np.where(real, scores.reshape(s, t, e), 0)                           # (S, T, E)
    if renormalise:
        total = p.sum(-1, keepdims=True) + _TINY                             # (S, T, 1)
        p = p / total
    n = np.maximum(real.sum(1), 1).astype(p.dtype)                           # (S, 1)
    f = (chosen.reshape(s, t, e) & real).sum(1).astype(p.dtype) / n          # (S, E)
    sequences = max(int(real.any(1).sum()), 1)
    loss = np.asarray((f * (p.sum(1) / n)).sum() * (e / sequences))

    def backward(dloss):
        # Each of a sequence's n tokens has its n-th part in P, so ∂loss/∂p = E · f / n: the same for all of them.
        slope = f / n * (dloss * (e / sequences))                            # (S, E)
        dp = np.where(real, slope[:, None], 0)                               # (S, T, E)
        if renormalise:
            # p_e = s_e / Σ s: as for every share of a sum, the mean of dp, weighed by p, comes off.
            dp = (dp - (dp * p).sum(-1, keepdims=True)) / total
        return dp.reshape(*lead, e)

    return loss, backward


def importance(scores: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = CV(I)² = Σ_e (I_e − μ)² / (E μ²),  with  I_e = Σ scores of e over the tokens  and  μ = Σ_e I_e / E.

    Nothing is counted here, so the loss is smooth; it is 0 where all experts weigh the same.

    Parameters
    ----------
    scores : (..., E)   float32 or float64, at least 0: the router's scores, or its weights with 0 where an expert was not chosen
    mask : (...)        booleans, False where a token is padding and does not count; None: all count

    Returns
    -------
    loss : ()           0 if μ is 0: no token counts, or none has a score
    backward : dloss () -> dscores (..., E)

    Raises
    ------
    ValueError   if mask is not boolean or not of shape (...), or scores is not float32 or float64

    References
    ----------
    Shazeer et al. 2017, arXiv:1701.06538, section 4

    Examples
    --------
    >>> loss, backward = importance(np.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> loss
    array(0.25)
    >>> backward(np.array(1.0))
    array([[ 0.25, -0.75],
           [ 0.25, -0.75]])
    """
    floats("importance", scores=scores)
    at_least_rank("importance", 1, scores=scores)
    booleans("importance", mask=mask)
    same_shape("importance", scores.shape[:-1], mask=mask)

    shape, e = scores.shape, scores.shape[-1]
    real = np.ones((*shape[:-1], 1), bool) if mask is None else mask[..., None]
    total = np.where(real, scores, 0).sum(tuple(range(scores.ndim - 1)))     # (E,): I
    mu = total.sum() / scores.dtype.type(max(e, 1))
    unit = mu * mu * scores.dtype.type(e) if mu != 0 else scores.dtype.type(np.inf)
    loss = np.asarray(((total - mu) * (total - mu)).sum() / unit)

    def backward(dloss):
        # loss = E Σ I² / (Σ I)² − 1, so ∂loss/∂I_e = 2E I_e / (Σ I)² − 2E Σ I² / (Σ I)³. With Σ I = E μ and Σ I² = E μ² (1 + loss)
        # that is 2 (I_e − μ (1 + loss)) / (E μ²).
        dtotal = 2 * dloss * (total - mu * (1 + loss)) / unit
        return np.where(real, dtotal, 0)

    return loss, backward
