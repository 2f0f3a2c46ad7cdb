"""The embedding table."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import demand, size
from byhand.noise import Noise
from numpy_impl.layers._fill import fill_normal
from numpy_impl.layers.module import Module
from numpy_impl.ops.embedding import embedding


class Embedding(Module):
    """y = weight[ids]: a row of the table for every id.

    Parameters
    ----------
    vocabulary : int    rows of the table
    d_model : int       width of a row
    padding_idx : int   the id whose row starts at zero and gets no gradient, so that it stays there
    dtype               of the table
    rng                 np.random.Generator of the initial values

    weight (V, D) starts as unit normals.

    Examples
    --------
    >>> table = Embedding(5, 2, rng=np.random.default_rng(0))
    >>> y, backward = table.forward(np.array([[1, 4, 1]]))
    >>> y.shape
    (1, 3, 2)
    >>> backward(np.ones_like(y))["weight"][:, 0]           # ids are no floats: the gradients alone come back
    array([0., 2., 0., 0., 1.], dtype=float32)
    """

    def __init__(self, vocabulary: int, d_model: int, *, padding_idx: int | None = None, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("Embedding", vocabulary=vocabulary, d_model=d_model)
        demand("Embedding", padding_idx is None or 0 <= padding_idx < vocabulary, f"padding_idx in [0, {vocabulary - 1}]",
               padding_idx=padding_idx)
        self.padding_idx = padding_idx
        self.weight = np.empty((vocabulary, d_model), dtype)
        fill_normal(self.weight, rng or np.random.default_rng())
        if padding_idx is not None:
            self.weight[padding_idx] = 0

    def forward(self, ids: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """ids (...) integers -> y (..., D); backward: dy -> grads. A plain table has no use for `noise`; an adapter in its place has."""
        y, embedding_backward = embedding(self.weight, ids=ids, padding_idx=self.padding_idx)
        if not self.trains("weight"):
            return y, lambda dy: self.grads()
        return y, lambda dy: self.grads(weight=embedding_backward(dy))
