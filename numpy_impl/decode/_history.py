"""The tokens that stand before the next one, as the rules that look back need them."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import booleans, exact_rank, floats, given, ids_below, of_dtype, same_shape


def history_of(function: str, logits: NDArray, history: NDArray, real: NDArray | None) -> NDArray | None:
    """Check logits (N, V), history (N, L) and real (N, L); return real, or None where no token is padding."""
    given(function, logits=logits, history=history)
    floats(function, logits=logits)
    exact_rank(function, 2, logits=logits, history=history)
    of_dtype(function, "int64", history=history)
    same_shape(function, (logits.shape[0], history.shape[1]), history=history)
    booleans(function, real=real)
    same_shape(function, history.shape, real=real)
    if real is not None and real.all():
        real = None
    ids_below(function, logits.shape[1], history=history if real is None else history[real])
    return real


def occurrences(history: NDArray, real: NDArray | None) -> tuple[NDArray, NDArray]:
    """The rows and the ids (M,) of the tokens that are no padding."""
    rows = np.broadcast_to(np.arange(len(history))[:, None], history.shape)
    return (rows.ravel(), history.ravel()) if real is None else (rows[real], history[real])


def behind_padding(history: NDArray, real: NDArray | None) -> tuple[NDArray, NDArray]:
    """(history, real) with every row's padding in front: what follows one another stands side by side, and the newest is the last."""
    if real is None:
        return history, np.ones(history.shape, dtype=bool)
    order = np.argsort(real, 1, kind="stable")      # False before True, each in its order
    return np.take_along_axis(history, order, 1), np.take_along_axis(real, order, 1)
