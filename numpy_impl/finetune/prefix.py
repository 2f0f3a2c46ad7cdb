"""What prefix tuning learns (Li & Liang 2021, arXiv:2101.00190): the keys and values of a few tokens that are not there."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import demand, size
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module


class PrefixEntries(NamedTuple):
    """What a prefix holds: key (K, N, E) and value (K, N, E)."""

    key: NDArray
    value: NDArray


class Prefix(Module):
    """key ‖ value = rows,  or with hidden  up(tanh(down(embedding))):  N learned keys and values for each of K heads.

    Parameters
    ----------
    n : int            N, entries; may be 0
    n_heads : int      K, heads of keys and values
    head_width : int   E, width of a head
    hidden : int       F, width inside the MLP through which they are learned; None: they are learned themselves
    dtype              of the parameters
    rng                np.random.Generator of the initial values

    rows (N, 2 · K · E) start as normals of deviation 0.02. Learned themselves they train badly at high rates (section 4.3 of the paper);
    through an MLP a step moves all of them at once: embedding (N, K · E), unit normals, down (F, K · E), up (2 · K · E, F). The MLP
    is of use in training only: `materialize` puts the rows it gives in its place.

    Examples
    --------
    >>> prefix = Prefix(3, 2, 4, hidden=5, rng=np.random.default_rng(0))
    >>> entries, backward = prefix.forward()
    >>> entries.key.shape, list(backward(entries.key, entries.value))
    ((2, 3, 4), ['embedding', 'down', 'up'])
    >>> prefix.materialize()
    >>> list(prefix.state_dict()), np.array_equal(prefix().value, entries.value)
    (['rows'], True)
    """

    def __init__(self, n: int, n_heads: int, head_width: int, *, hidden: int | None = None, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("Prefix", at_least=0, n=n)
        size("Prefix", n_heads=n_heads, head_width=head_width)
        rng = rng or np.random.default_rng()
        width = n_heads * head_width
        self.n, self.n_heads = n, n_heads
        self.rows = self.embedding = self.down = self.up = None
        if hidden is None:
            self.rows = (0.02 * rng.standard_normal((n, 2 * width))).astype(dtype)
        else:
            self.embedding = rng.standard_normal((n, width)).astype(dtype)
            self.down = Linear(width, hidden, dtype=dtype, rng=rng)
            self.up = Linear(hidden, 2 * width, dtype=dtype, rng=rng)

    def forward(self) -> tuple[PrefixEntries, Callable]:
        """-> key (K, N, E), value (K, N, E); backward: dkey, dvalue -> grads."""
        rows, rows_backward = self._rows()
        key, value = self._split(rows)

        def backward(dkey, dvalue):
            drows = np.concatenate([dkey, dvalue]).swapaxes(0, 1).reshape(rows.shape)      # heads side by side, keys before values
            return rows_backward(drows)

        return PrefixEntries(key, value), backward

    def materialize(self) -> None:
        """Learn the rows themselves from now on, beginning with those that the MLP gives; the MLP is forgotten."""
        demand("Prefix.materialize", self.rows is None, "a prefix with an MLP", hidden=None)
        self.rows = self._rows()[0]
        self.embedding = self.down = self.up = None

    def _rows(self) -> tuple[NDArray, Callable]:
        """(N, 2 · K · E); backward: drows -> grads."""
        if self.rows is not None:
            return self.rows, lambda drows: self.grads(rows=drows)
        h, down_backward = self.down.forward(self.embedding)
        h = np.tanh(h)
        rows, up_backward = self.up.forward(h)

        def backward(drows):
            dh, dup = up_backward(drows)
            dembedding, ddown = down_backward(dh * (1 - h * h))                            # tanh' = 1 − tanh²
            return self.grads(embedding=dembedding) | {"down": ddown, "up": dup}

        return rows, backward

    def _split(self, rows: NDArray) -> NDArray:
        """(N, 2 · K · E) -> (2, K, N, E): a view."""
        return rows.reshape(self.n, 2, self.n_heads, rows.shape[1] // (2 * self.n_heads)).transpose(1, 2, 0, 3)
