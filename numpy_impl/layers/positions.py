"""Absolute positions: one row of a table is added to every token, learned or sinusoidal."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, floats, integers, same_shape, size
from numpy_impl.layers.module import Module
from numpy_impl.ops.embedding import embedding
from numpy_impl.positions.sinusoidal import sinusoidal


class LearnedPositions(Module):
    """y = x + weight[offset : offset + T],  or  x + weight[positions].

    Parameters
    ----------
    max_length : int   rows of the table: there is no position beyond them
    d_model : int      width of a row
    dtype              of the table
    rng                np.random.Generator of the initial values

    weight (max_length, D) starts as normals of deviation 0.02, small beside the token embeddings it is added to.

    Examples
    --------
    >>> positions = LearnedPositions(8, 2, rng=np.random.default_rng(0))
    >>> y, backward = positions.forward(np.zeros((3, 4, 2), dtype=np.float32), offset=1)
    >>> np.array_equal(y[0], positions.weight[1:5])
    True
    >>> dx, grads = backward(np.ones_like(y))
    >>> grads["weight"][:, 0]
    array([0., 3., 3., 3., 3., 0., 0., 0.], dtype=float32)
    """

    def __init__(self, max_length: int, d_model: int, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("LearnedPositions", max_length=max_length, d_model=d_model)
        self.weight = (0.02 * (rng or np.random.default_rng()).standard_normal((max_length, d_model))).astype(dtype)

    def forward(self, x: NDArray, *, offset: int = 0, positions: NDArray | None = None) -> tuple[NDArray, Callable]:
        """x (..., T, D) whose first token stands at position `offset` -> y (..., T, D); backward: dy -> dx, grads.

        positions (..., T), if given, say of every token where it stands.
        """
        floats("LearnedPositions", x=x, weight=self.weight)
        at_least_rank("LearnedPositions", 2, x=x)
        t, (max_length, d) = x.shape[-2], self.weight.shape
        same_shape("LearnedPositions", (*x.shape[:-1], d), x=x)
        size("LearnedPositions", at_least=0, offset=offset)
        if positions is not None:
            same_shape("LearnedPositions", x.shape[:-1], positions=positions)
            found, table_backward = embedding(self.weight, ids=positions)
            return x + found, lambda dy: (dy, self.grads(weight=table_backward(dy)))
        demand("LearnedPositions", offset + t <= max_length, f"positions below {max_length}", offset=offset, x=x)
        rows = slice(offset, offset + t)

        def backward(dy):
            dweight = np.zeros((max_length, d), dy.dtype)
            dweight[rows] = dy.sum(tuple(range(dy.ndim - 2)))          # every sequence of the batch reads the same rows
            return dy, self.grads(weight=dweight)

        return x + self.weight[rows], backward


class SinusoidalPositions(Module):
    """y = x + table[offset : offset + T],  or  x + table[positions],

    with  table[p] = (sin(p · ω₀), cos(p · ω₀), sin(p · ω₁), …)  as in `positions.sinusoidal`.

    Parameters
    ----------
    d_model : int   width of a row

    It has no parameters and no last position.

    Examples
    --------
    >>> y, backward = SinusoidalPositions(2).forward(np.zeros((1, 2), dtype=np.float32), offset=1)
    >>> y.round(4)
    array([[0.8415, 0.5403]], dtype=float32)
    """

    def __init__(self, d_model: int, *, dtype: DTypeLike = np.float32):
        size("SinusoidalPositions", d_model=d_model)
        self.d_model = d_model

    def forward(self, x: NDArray, *, offset: int = 0, positions: NDArray | None = None) -> tuple[NDArray, Callable]:
        """x (..., T, D) whose first token stands at position `offset` -> y (..., T, D); backward: dy -> dx, grads.

        positions (..., T), if given, say of every token where it stands.
        """
        floats("SinusoidalPositions", x=x)
        at_least_rank("SinusoidalPositions", 2, x=x)
        same_shape("SinusoidalPositions", (*x.shape[:-1], self.d_model), x=x)
        if positions is not None:
            integers("SinusoidalPositions", positions=positions)
            same_shape("SinusoidalPositions", x.shape[:-1], positions=positions)
            demand("SinusoidalPositions", not (positions < 0).any(), "positions >= 0", positions=positions)
            table = sinusoidal(int(positions.max(initial=0)) + 1, self.d_model, dtype=x.dtype)
            return x + table[positions], lambda dy: (dy, self.grads())
        return x + sinusoidal(x.shape[-2], self.d_model, offset=offset, dtype=x.dtype), lambda dy: (dy, self.grads())
