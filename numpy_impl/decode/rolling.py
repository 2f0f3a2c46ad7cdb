"""The cache of a model whose queries see a window: what has left the window is forgotten (Jiang et al. 2023, Mistral, arXiv:2310.06825)."""

import numpy as np
from numpy.typing import NDArray

from byhand.checks import continues, demand, follows, size
from numpy_impl.decode.cache import Held, Places


class RollingStore:
    """Of each row the last  window − 1 + spare  keys and values: what a query may see beside its own, and a little more.

    Parameters
    ----------
    window : int   how many keys a query sees, its own included
    spare : int    how many tokens more are kept, so that as many can be taken back

    `append` of T tokens returns the last  window − 1 + T  keys of every row, as many as there are: what the first of the T queries may see,
    and the T keys themselves.

    Rows end at the same column, whatever their lengths: then one token more for every row is one column more, and what is returned is a
    view. There is room for as many tokens again as are kept. When it is used up, what is kept moves to a new array, which costs one
    copy of a token for every token or so; the memory does not grow with the text.

    Raises
    ------
    ValueError   if window is no positive integer or spare no integer ≥ 0, tokens are taken back and no whole window is left before them, or
                 new tokens do not follow those that are held

    Examples
    --------
    >>> from numpy_impl.decode.cache import Places
    >>> store, key = RollingStore(window=3), np.arange(5.0).reshape(1, 1, 5, 1)
    >>> store.append(key, key, Places(np.array([0]), 5, None)).key.ravel()
    array([0., 1., 2., 3., 4.])
    >>> store.append(key + 5, key + 5, Places(np.array([5]), 5, None)).key.ravel()
    array([3., 4., 5., 6., 7., 8., 9.])
    """

    def __init__(self, *, window: int, spare: int = 32):
        size("RollingStore", window=window)
        size("RollingStore", at_least=0, spare=spare)
        self.window, self.kept = int(window), int(window) - 1 + int(spare)
        self.key: NDArray | None = None                                 # (B, K, room, E)
        self.value: NDArray | None = None                               # (B, K, room, W)
        self.end = 0                                                    # the column behind every row's newest token
        self.lengths: NDArray                                           # (B,) how many tokens were read
        self.oldest: NDArray                                            # (B,) the position of the first that is kept

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: NDArray, value: NDArray, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of the window before them, and theirs."""
        if self.key is None:
            self.key, self.value = (np.empty_like(new[:, :, :0]) for new in (key, value))
            self.lengths = self.oldest = places.starts
        follows("RollingStore", starts=places.starts, held=self.lengths)
        continues("RollingStore", key=(key, self.key), value=(value, self.value))
        t, end = key.shape[2], self.end
        if places.real is None and end + t <= self.key.shape[2]:
            self.end = end + t
            self.key[:, :, end : self.end], self.value[:, :, end : self.end] = key, value
            key, value = self.key[:, :, : self.end], self.value[:, :, : self.end]
        else:
            before = slice(max(end - self.kept, 0), end)
            key = np.concatenate([self.key[:, :, before], key], axis=2)
            value = np.concatenate([self.value[:, :, before], value], axis=2)
            if places.real is not None:
                held = self._positions()[:, before] >= self.oldest[:, None]
                key, value = _to_the_right(np.concatenate([held, places.real], axis=1), key, value)
            self.end = min(key.shape[2], self.kept)
            self.key, self.value = _with_room(key, self.end), _with_room(value, self.end)
            self.oldest = np.maximum(self.oldest, places.lengths - self.end)
        self.lengths = places.lengths
        seen = min(places.longest, self.window - 1 + t)                 # S: what the first of T queries sees, and the keys behind it
        newest = slice(key.shape[2] - seen, None)
        return Held(key[:, :, newest], value[:, :, newest], None if places.start is not None else places.lengths - seen)

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            self.key, self.value = self.key[rows], self.value[rows]
            self.lengths, self.oldest = self.lengths[rows], self.oldest[rows]

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it.

        Raises
        ------
        ValueError   if some of the window − 1 tokens before a row's new end are no longer kept
        """
        if self.key is None:
            return
        demand("RollingStore.crop", bool((self.oldest <= np.maximum(lengths - (self.window - 1), 0)).all()),
               f"the {self.window - 1} tokens before each new end still kept; a larger spare keeps more", lengths=lengths.tolist(),
               kept_from=self.oldest.tolist())
        if (self.lengths - lengths == (self.lengths - lengths)[:1]).all():
            self.end -= int((self.lengths - lengths).max(initial=0))
        else:                                                           # rows that end at different columns move until they no longer do
            stays = self._positions() < lengths[:, None]
            now = slice(self.end)
            self.key[:, :, now], self.value[:, :, now] = _to_the_right(stays, self.key[:, :, now], self.value[:, :, now])
        self.lengths = lengths

    def _positions(self) -> NDArray:
        """(B, end) where the token of each column stands in its row; below `oldest` there is none."""
        return np.arange(self.end) + (self.lengths - self.end)[:, None]


def _to_the_right(kept: NDArray, *arrays: NDArray) -> list[NDArray]:
    """Each (B, K, C, E) with its columns that are kept (B, C) at the end, in their order, and zeros before them."""
    order = np.argsort(kept, axis=1, kind="stable")                     # what is not kept comes first
    hidden = ~np.take_along_axis(kept, order, axis=1)[:, None, :, None]
    moved = [np.take_along_axis(array, order[:, None, :, None], axis=2) for array in arrays]
    for array in moved:
        np.copyto(array, 0, where=hidden)
    return moved


def _with_room(array: NDArray, count: int) -> NDArray:
    """The last `count` columns of (B, K, C, E), and room for as many."""
    b, k, c, e = array.shape
    grown = np.zeros((b, k, 2 * count, e), array.dtype)
    grown[:, :, :count] = array[:, :, c - count :]
    return grown
