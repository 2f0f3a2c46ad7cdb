"""The embedding table: a row per id."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, ids_below
from numpy_impl.ops._blocks import blocks


def embedding(weight: NDArray, *, ids: NDArray, padding_idx: int | None = None) -> tuple[NDArray, Callable]:
    """y = weight[ids].

    Parameters
    ----------
    weight : (V, D)        one row per id, float32 or float64
    ids : (...)            integers in [0, V)
    padding_idx : int      id whose row gets no gradient, counted from the end if negative; None for none

    Returns
    -------
    y : (..., D)
    backward : dy (..., D) -> dweight (V, D)

    Raises
    ------
    ValueError   if weight is not a matrix of float32 or float64, or an id or padding_idx is out of range or no integer

    Examples
    --------
    >>> y, backward = embedding(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), ids=np.array([2, 0, 2]))
    >>> y
    array([[5., 6.],
           [1., 2.],
           [5., 6.]])
    >>> backward(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    array([[0., 1.],
           [0., 0.],
           [2., 1.]])
    """
    floats("embedding", weight=weight)
    exact_rank("embedding", 2, weight=weight)
    n_rows, width = weight.shape
    ids_below("embedding", n_rows, ids=ids)
    inside = padding_idx is None or (isinstance(padding_idx, int) and -n_rows <= padding_idx < n_rows)
    demand("embedding", inside, f"padding_idx in [{-n_rows}, {n_rows - 1}] or None", padding_idx=padding_idx)

    flat = ids.reshape(-1)
    shape, dtype = weight.shape, weight.dtype

    def backward(dy):
        # Row v receives the sum of dy over the places where ids is v. Sorted by id, these places form runs, and runs of one length stack
        # into a rectangle (runs, length) that one sum along its second axis reduces: a step per length, and lengths are few.
        dy = dy.reshape(flat.size, width)
        dweight = np.zeros(shape, dtype)
        order = np.argsort(flat.astype(np.min_scalar_type(n_rows)), kind="stable")   # 16 bits are sorted by radix, far faster than 64
        ordered = flat[order]
        first = np.ones(flat.size, bool)                                             # of its run
        first[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(first)
        lengths = np.diff(starts, append=flat.size)
        for length in np.unique(lengths):
            begin = starts[lengths == length]
            rows, places = ordered[begin], order[begin[:, None] + np.arange(length)]   # (runs,), (runs, length)
            for runs in blocks(len(begin), length * width):
                taken = np.take(dy, places[runs], axis=0)                              # (runs, length, D)
                dweight[rows[runs]] = taken[:, 0] if length == 1 else taken.sum(1)     # most ids occur once: nothing to sum
        if padding_idx is not None:
            dweight[padding_idx] = 0
        return dweight

    return np.take(weight, ids, axis=0), backward
