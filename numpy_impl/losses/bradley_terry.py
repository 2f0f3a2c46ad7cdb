"""The Bradley–Terry loss: the scores of two answers say how probably people prefer the one to the other."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats, in_range, not_negative, same_shape


def bradley_terry(
    chosen: NDArray, rejected: NDArray, *, margin: float = 0.0, label_smoothing: float = 0.0
) -> tuple[NDArray, Callable]:
    """loss = mean of  −(1 − ε) · log σ(δ) − ε · log σ(−δ),  with  δ = chosen − rejected − margin.

    σ(chosen − rejected) is the probability that the chosen answer wins.

    Parameters
    ----------
    chosen : (...,)       scores of the preferred answers, float32 or float64
    rejected : (...,)     scores of the others
    margin : float        ≥ 0, by how much the preferred answer should lead
    label_smoothing : float   ε in [0, 1], how probably the two were confused by who compared them

    Returns
    -------
    loss : ()   NaN if there are no pairs
    backward : dloss () -> dchosen (...,), drejected (...,)

    Raises
    ------
    ValueError   if the shapes differ, margin or label_smoothing is out of range, or a dtype differs

    References
    ----------
    Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, equation 1; Touvron et al. 2023, arXiv:2307.09288, equation 2 (the margin);
    Mitchell 2023, "A note on DPO with noisy preferences" (the smoothing)

    Examples
    --------
    >>> loss, backward = bradley_terry(np.array([np.log(3.0)]), np.array([0.0]))
    >>> round(float(loss), 4)
    0.2877
    >>> backward(np.array(1.0))
    (array([-0.25]), array([0.25]))
    """
    floats("bradley_terry", chosen=chosen, rejected=rejected)
    same_shape("bradley_terry", chosen.shape, rejected=rejected)
    not_negative("bradley_terry", margin=margin)
    in_range("bradley_terry", 0, 1, label_smoothing=label_smoothing)

    # log σ(−δ) = log σ(δ) − δ, so the loss is  softplus(−δ) + ε δ  with  softplus(−δ) = −log σ(δ) = log(1 + exp(−|δ|)) + max(−δ, 0).
    delta = chosen - rejected - margin
    softplus = np.log1p(np.exp(-np.abs(delta))) + np.maximum(-delta, 0)
    losses = np.asarray(softplus + label_smoothing * delta)
    n = losses.size
    loss = np.asarray(losses.sum() / n)

    def backward(dloss):
        # softplus(−δ) has the derivative −σ(−δ) = σ(δ) − 1, and σ(δ) = exp(−softplus(−δ)).
        dchosen = (np.exp(-softplus) - 1 + label_smoothing) * (dloss / n)
        return np.asarray(dchosen), np.asarray(-dchosen)

    return loss, backward
