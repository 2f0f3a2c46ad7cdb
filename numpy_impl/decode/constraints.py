"""What must not come, and what must: banned words, suppressed tokens, a forced one."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, size
from numpy_impl.decode._history import behind_padding, history_of


def ban_words(logits: NDArray, *, history: NDArray, words: tuple[tuple[int, ...], ...], real: NDArray | None = None) -> NDArray:
    """yᵢ = −∞ if i is the last token of a word whose others are the history's last,  logitsᵢ elsewhere.

    Parameters
    ----------
    logits : (N, V)                 float32 or float64
    history : (N, L) int64          the tokens so far, the prompt's included
    words : tuple of tuples of int  token ids; a word of one never comes
    real : (N, L)                   booleans, False for padding, which is not looked at; None: there is none

    Returns
    -------
    y : (N, V)

    Raises
    ------
    ValueError   if a word is empty or an id outside [0, V), or shapes or dtypes do not fit

    Examples
    --------
    >>> ban_words(np.zeros((1, 4)), history=np.array([[3, 1]]), words=((0,), (1, 2), (2, 3)))
    array([[-inf,   0., -inf,   0.]])
    """
    real = history_of("ban_words", logits, history, real)
    demand("ban_words", isinstance(words, (tuple, list)) and all(words), "words as a tuple of tuples of ids, none empty", words=words)
    words = tuple(_inside("ban_words", logits.shape[1], words=word) for word in words)
    history, real = behind_padding(history, real)
    y = logits.copy()
    for length in sorted({len(word) for word in words}):
        if length - 1 <= history.shape[1]:
            group = np.array([word for word in words if len(word) == length])         # (W, length)
            behind = history.shape[1] - (length - 1)
            begun = (history[:, None, behind:] == group[:, :-1]).all(-1)              # (N, W)
            begun &= real[:, behind:].all(1, keepdims=True)
            rows, which = np.nonzero(begun)
            y[rows, group[which, -1]] = -np.inf
    return y


def force_token(logits: NDArray, *, token: int) -> NDArray:
    """yᵢ = 0 for the token,  −∞ for all others:  the logarithm of a certainty, whatever the logits were.

    Parameters
    ----------
    logits : (..., V)   float32 or float64
    token : int         its id

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if the token is outside [0, V), or logits is not float32 or float64

    Examples
    --------
    >>> force_token(np.array([3.0, 1.0, 2.0]), token=1)
    array([-inf,   0., -inf])
    """
    floats("force_token", logits=logits)
    at_least_rank("force_token", 1, logits=logits)
    (token,) = _inside("force_token", logits.shape[-1], token=(token,))
    y = np.full_like(logits, -np.inf)
    y[..., token] = 0
    return y


def suppress(logits: NDArray, *, tokens: tuple[int, ...]) -> NDArray:
    """yᵢ = −∞ for each of the tokens,  logitsᵢ elsewhere.

    Parameters
    ----------
    logits : (..., V)       float32 or float64
    tokens : tuple of int   ids

    Returns
    -------
    y : (..., V)

    Raises
    ------
    ValueError   if a token is outside [0, V), or logits is not float32 or float64

    Examples
    --------
    >>> suppress(np.array([3.0, 1.0, 2.0]), tokens=(0, 2))
    array([-inf,   1., -inf])
    """
    floats("suppress", logits=logits)
    at_least_rank("suppress", 1, logits=logits)
    tokens = _inside("suppress", logits.shape[-1], tokens=tokens)
    y = logits.copy()
    y[..., list(tokens)] = -np.inf
    return y


def _inside(function: str, vocabulary: int, **ids: tuple[int, ...]) -> tuple[int, ...]:
    """The one value as a tuple of ids of the vocabulary."""
    ((name, tokens),) = ids.items()
    demand(function, isinstance(tokens, (tuple, list)), f"{name} as a tuple of ids", **{name: tokens})
    for token in tokens:
        size(function, at_least=0, **{name: token})
        demand(function, int(token) < vocabulary, f"{name} below the vocabulary of {vocabulary}", **{name: token})
    return tuple(int(token) for token in tokens)
