"""No n-gram twice (Paulus, Xiong & Socher 2017, arXiv:1705.04304, section 2.5)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import size as size_of
from numpy_impl.decode._history import behind_padding, history_of


def no_repeat_ngram(logits: NDArray, *, history: NDArray, size: int, real: NDArray | None = None) -> NDArray:
    """yᵢ = −∞ if the history's last size − 1 tokens and i make a run of tokens that stands in the history,  logitsᵢ elsewhere.

    Padding is never looked at: a run goes on behind it.

    Parameters
    ----------
    logits : (N, V)           float32 or float64
    history : (N, L) int64    the tokens so far, the prompt's included
    size : int                n, the length of a run; with 1 no token comes twice
    real : (N, L)             booleans, False for padding; None: there is none

    Returns
    -------
    y : (N, V)

    Raises
    ------
    ValueError   if size is below 1, shapes or dtypes do not fit, or an id that is no padding is outside [0, V)

    Examples
    --------
    >>> no_repeat_ngram(np.zeros((1, 4)), history=np.array([[1, 2, 3, 1, 2]]), size=3)
    array([[  0.,   0.,   0., -inf]])
    """
    size_of("no_repeat_ngram", size=size)
    size = int(size)
    history, real = behind_padding(history, history_of("no_repeat_ngram", logits, history, real))
    y, length = logits.copy(), history.shape[1]
    if length >= size:
        runs = np.lib.stride_tricks.sliding_window_view(history, size, 1)        # (N, L − n + 1, n)
        last = history[:, None, length - size + 1:]                              # (N, 1, n − 1), what the next token would end
        again = (runs[..., :-1] == last).all(-1) & real[:, :length - size + 1]   # with padding in front, a run whose first is real is real
        rows, at = np.nonzero(again)
        y[rows, runs[rows, at, -1]] = -np.inf
    return y
