"""Penalties for tokens that have come before: repetition (Keskar et al. 2019, arXiv:1909.05858, section 4.1), frequency and presence (as
OpenAI's completions API defines them)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least, positive
from numpy_impl.decode._history import history_of, occurrences


def repetition_penalty(logits: NDArray, *, history: NDArray, penalty: float, real: NDArray | None = None) -> NDArray:
    """yᵢ = logitsᵢ / θ where positive,  logitsᵢ · θ elsewhere,  if token i stands in the history;  logitsᵢ if not.

    Both lower the token for θ > 1, however often it came. Padding is never looked at.

    Parameters
    ----------
    logits : (N, V)           float32 or float64
    history : (N, L) int64    the tokens so far, the prompt's included if they are to count
    penalty : float           θ > 0
    real : (N, L)             booleans, False for padding; None: there is none

    Returns
    -------
    y : (N, V)

    Raises
    ------
    ValueError   if the penalty is not positive and finite, shapes or dtypes do not fit, or an id that is no padding is outside [0, V)

    Examples
    --------
    >>> repetition_penalty(np.array([[2.0, -2.0, 1.0]]), history=np.array([[0, 1, 0]]), penalty=2.0)
    array([[ 1., -4.,  1.]])
    """
    positive("repetition_penalty", penalty=penalty)
    rows, ids = occurrences(history, history_of("repetition_penalty", logits, history, real))
    y, old = logits.copy(), logits[rows, ids]
    y[rows, ids] = np.where(old > 0, old / penalty, old * penalty)    # a token that came twice is written twice, with the same value
    return y


def frequency_penalty(logits: NDArray, *, history: NDArray, penalty: float, real: NDArray | None = None) -> NDArray:
    """yᵢ = logitsᵢ − α · (how often token i stands in the history).

    Parameters
    ----------
    logits : (N, V)           float32 or float64
    history : (N, L) int64    the tokens that count: those generated so far, without the prompt
    penalty : float           α; a negative one favours what has come
    real : (N, L)             booleans, False for padding; None: there is none

    Returns
    -------
    y : (N, V)

    Raises
    ------
    ValueError   if the penalty is not finite, shapes or dtypes do not fit, or an id that is no padding is outside [0, V)

    Examples
    --------
    >>> frequency_penalty(np.array([[2.0, -2.0, 1.0]]), history=np.array([[0, 1, 0]]), penalty=0.5)
    array([[ 1. , -2.5,  1. ]])
    """
    return _lowered("frequency_penalty", logits, history, penalty, real, once=False)


def presence_penalty(logits: NDArray, *, history: NDArray, penalty: float, real: NDArray | None = None) -> NDArray:
    """yᵢ = logitsᵢ − α if token i stands in the history,  however often;  logitsᵢ if not.

    Parameters
    ----------
    logits : (N, V)           float32 or float64
    history : (N, L) int64    the tokens that count: those generated so far, without the prompt
    penalty : float           α; a negative one favours what has come
    real : (N, L)             booleans, False for padding; None: there is none

    Returns
    -------
    y : (N, V)

    Raises
    ------
    ValueError   if the penalty is not finite, shapes or dtypes do not fit, or an id that is no padding is outside [0, V)

    Examples
    --------
    >>> presence_penalty(np.array([[2.0, -2.0, 1.0]]), history=np.array([[0, 1, 0]]), penalty=0.5)
    array([[ 1.5, -2.5,  1. ]])
    """
    return _lowered("presence_penalty", logits, history, penalty, real, once=True)


def _lowered(function: str, logits: NDArray, history: NDArray, penalty: float, real: NDArray | None, *, once: bool) -> NDArray:
    at_least(function, -1e30, penalty=penalty)
    rows, ids = occurrences(history, history_of(function, logits, history, real))
    # The distinct (row, id) pairs, each as one number: y[rows, ids] -= … would take a pair that comes twice off once.
    flat, counts = np.unique(rows * logits.shape[1] + ids, return_counts=True)
    y = logits.flatten()
    y[flat] -= penalty if once else penalty * counts.astype(y.dtype)
    return y.reshape(logits.shape)
