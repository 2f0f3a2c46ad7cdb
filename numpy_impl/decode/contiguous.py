"""Keys and values side by side in one array that grows: the plain cache."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import continues, demand
from numpy_impl.decode.cache import Held, Places

_LEAST = 64  # tokens that there is room for at first


class ContiguousStore:
    """Row b's token number n lies at [b, :, n]. Where there is no more room, room is doubled: what is held is copied once for every token
    or so, however long the text grows.

    Examples
    --------
    >>> store, key = ContiguousStore(), np.arange(6.0).reshape(2, 1, 3, 1)
    >>> real = np.array([[False, True, True], [True, True, True]])       # the first row is padded on the left
    >>> key, value, first = store.append(key, key, Places(np.zeros(2, np.int64), 3, real))
    >>> key[:, 0, :, 0], first
    (array([[1., 2., 0.],
           [3., 4., 5.]]), array([0, 0]))
    """

    def __init__(self) -> None:
        self.key: NDArray | None = None                                 # (B, K, room, E)
        self.value: NDArray | None = None                               # (B, K, room, W)

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: NDArray, value: NDArray, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all."""
        longest = places.longest
        if self.key is None:
            self.key, self.value = (np.empty_like(new[:, :, :0]) for new in (key, value))
        held = f"the {len(self.key)} rows that it holds (after a call that broke off, a new cache)"
        demand("ContiguousStore", len(self.key) == len(key), held, key=key)
        continues("ContiguousStore", key=(key, self.key), value=(value, self.value))
        self.key, self.value = _room(self.key, longest), _room(self.value, longest)
        if places.start is not None:
            self.key[:, :, places.start : longest] = key
            self.value[:, :, places.start : longest] = value
            return Held(self.key[:, :, :longest], self.value[:, :, :longest], None)
        rows, new = np.nonzero(np.ones(places.positions.shape, bool) if places.real is None else places.real)
        at = places.positions[rows, new]
        self.key[rows, :, at], self.value[rows, :, at] = key[rows, :, new], value[rows, :, new]
        return Held(self.key[:, :, :longest], self.value[:, :, :longest], np.zeros(len(key), np.int64))

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was; before the first call there is nothing to move."""
        if self.key is not None and not np.array_equal(rows, np.arange(len(self.key))):
            self.key, self.value = self.key[rows], self.value[rows]

    def crop(self, lengths: NDArray) -> None:
        """Nothing is to be done: what stands behind a row's length is overwritten, and until then no one looks at it."""


def _room(held: NDArray, longest: int) -> NDArray:
    """What is held, with room for `longest` tokens at least."""
    b, k, room, e = held.shape
    if room >= longest:
        return held
    grown = np.zeros((b, k, max(longest, 2 * room, _LEAST), e), held.dtype)      # zeros: what is hidden is to be finite
    grown[:, :, :room] = held
    return grown
