"""What a decoder reads while it learns to predict labels: the labels themselves, one place later."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, integers


def shift_right(labels: NDArray, *, start: int, padding: int, ignore_index: int = -100) -> NDArray:
    """y = (start, labels₀, labels₁, …, labels_T₋₂),  with padding in place of ignore_index.

    The decoder's output at t then predicts labels_t from the labels before it.

    Parameters
    ----------
    labels : (..., T) integers   token ids, or ignore_index for a place that does not count
    start : int                  the id every sequence begins with
    padding : int                the id read where a label does not count
    ignore_index : int           which labels those are

    Returns
    -------
    y : (..., T)   like labels; it has no gradient

    Raises
    ------
    ValueError   if labels have no axis or are no integers

    Examples
    --------
    >>> shift_right(np.array([[5, 6, 7], [8, -100, -100]]), start=1, padding=0)
    array([[1, 5, 6],
           [1, 8, 0]])
    """
    integers("shift_right", labels=labels)
    at_least_rank("shift_right", 1, labels=labels)
    y = np.full_like(labels, start)
    y[..., 1:] = np.where(labels == ignore_index, padding, labels)[..., :-1]
    return y
