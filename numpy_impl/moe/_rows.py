"""Rows in expert order: which belong to each expert, and the sum of those that belong to one token."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numpy_impl.ops._blocks import blocks


def sum_rows(rows: NDArray, weights: NDArray, tokens: NDArray, n: int) -> NDArray:
    """y[t] = Σ over the rows m with tokens[m] = t of weights[m] · rows[m].

    rows (M, D), weights (M,), tokens (M,) integers in [0, n) -> y (n, D); a token without rows is 0.
    """
    # Tokens with c rows each form a rectangle (tokens, c) of row numbers; gathered, it is (tokens, c, D), and the weighted sum over c is a
    # small matrix product, or zeros where c is 0. If every token has k rows, there is one rectangle; if some were dropped, at most k + 1.
    width = rows.shape[1]
    y = np.empty((n, width), rows.dtype)
    order = np.argsort(tokens.astype(np.min_scalar_type(n)), kind="stable")     # (M,): the rows of one token stand together
    counts = np.bincount(tokens, minlength=n)                                   # (n,)
    first = np.cumsum(counts) - counts                                          # (n,): where in `order` a token begins
    for count in np.unique(counts).tolist():
        these = np.flatnonzero(counts == count)                                 # (T,): the tokens with so many rows
        places = order[first[these, None] + np.arange(count)]                   # (T, c)
        for part in blocks(len(these), count * width):
            gathered = np.take(rows, places[part], axis=0)                      # (block, c, D)
            y[these[part]] = np.matmul(weights[places[part], None].swapaxes(1, 2), gathered)[:, 0]
    return y


def active(counts: NDArray) -> Iterator[tuple[int, slice]]:
    """Every expert that has rows, and which they are."""
    stop = 0
    for e, count in enumerate(counts.tolist()):
        start, stop = stop, stop + count
        if count:
            yield e, slice(start, stop)
