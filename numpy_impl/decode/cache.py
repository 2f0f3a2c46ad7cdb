"""What a model remembers of the tokens it has read: the keys and values of every layer.

A causal model's keys and values of a token depend on that token and those before it. When another token follows, none of them changes: they
are kept, and only the new token runs through the model. One pass over all of a prompt (*prefill*) and then a pass for each new
token (*decode*) give the logits of a pass over the whole text.

Rows of a batch may be of different lengths, and there may be padding on either side: padding is not kept. Row b's token number n stands at
position n, whatever stood between, and a row's keys are those of its own tokens alone.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.checks import booleans, demand, exact_rank, given, ids_below, integers, same_shape


class Places:
    """Where the tokens of one call stand.

    starts (B,)        how many tokens each row held before the call
    real (B, T)        which of the new ones are no padding; None: all
    positions (B, T)   of every new token in its row; padding has the position of the token before it, or 0
    lengths (B,)       how many tokens each row holds after the call
    start              the one number in starts, where all rows are alike and nothing is padding; otherwise None
    """

    def __init__(self, starts: NDArray, t: int, real: NDArray | None):
        self.starts = starts
        self.real = None if real is None or real.all() else real
        told = np.ones((len(starts), t), dtype=bool) if self.real is None else self.real
        self.positions = np.maximum(starts[:, None] + np.cumsum(told, 1) - 1, 0)
        self.lengths = starts + told.sum(1)
        alike = self.real is None and bool((starts == starts[:1]).all())
        self.start = int(starts[0]) if alike and len(starts) else 0 if alike else None
        self._masks: dict[tuple, NDArray] = {}                          # the layers of a model ask for the same one

    @property
    def longest(self) -> int:
        """The length of the longest row after the call."""
        return int(self.lengths.max()) if self.start is None else self.start + self.positions.shape[1]

    def last(self) -> NDArray:
        """(B,) which of the T new tokens is each row's last one that is no padding; −1 where all are."""
        b, t = self.positions.shape
        return np.full(b, t - 1) if self.real is None else np.where(self.real, np.arange(t), -1).max(1)

    def seen(self, first: NDArray, keys: int, left: int | None) -> NDArray:
        """(B, 1, T, S) booleans: which of the S keys, from position first[b] on, are up to each new token's own, and no more than `left`
        before it."""
        name = (first.tobytes(), keys, left)
        if name not in self._masks:
            ahead = (first[:, None] + np.arange(keys))[:, None, :] - self.positions[:, :, None]     # (B, T, S): of the query
            seen = (ahead <= 0) & (first[:, None] + np.arange(keys) >= 0)[:, None, :]
            self._masks[name] = (seen if left is None else seen & (ahead >= -left))[:, None]
        return self._masks[name]


class Held(NamedTuple):
    """All that a layer's new tokens may look at.

    key (B, K, S, E), value (B, K, S, W)
    first (B,)   the position of each row's first key. A key at a position below 0 or not below the row's length is none. None: the S keys
                 are the last S of every row, the newest at the end

    They may be views of what the store keeps: they are to be read, and hold until the next call.
    """

    key: NDArray
    value: NDArray
    first: NDArray | None


class Store(Protocol):
    """Keeps one layer's keys and values; each way of keeping them is one."""

    def append(self, key: NDArray, value: NDArray, places: Places) -> Held:
        """Keep what is new, key (B, K, T, E) and value (B, K, T, W), and return all there is."""

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was."""

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


class LayerCache:
    """What an attention layer is given: its own store, and where the new tokens stand."""

    def __init__(self, store: Store, places: Places):
        self.store, self.places = store, places
        self.first: NDArray | None = None                               # of the keys that were appended last, as Held says

    def append(self, key: NDArray, value: NDArray, *, left: int | None = None) -> tuple[NDArray, NDArray, NDArray | None]:
        """key (B, K, T, E), value (B, K, T, W) of the new tokens -> those of all tokens, and which of them each new token sees, no further
        than `left` back, as (B, 1, T, S).

        Without such a mask the rows are alike: the last query stands beside the last key, and `causal` and a window say all.
        """
        exact_rank("LayerCache", 4, key=key, value=value)
        same_shape("LayerCache", (*key.shape[:-1], value.shape[-1]), value=value)
        demand("LayerCache", (key.shape[0], key.shape[2]) == self.places.positions.shape, "keys of the tokens that were placed", key=key,
               positions=self.places.positions)
        kept = getattr(self.store, "window", None)
        seen = kept is None or (left is not None and left < kept)
        demand("LayerCache", seen, "a store that keeps all that is seen", left=left, window=kept)
        key, value, self.first = self.store.append(key, value, self.places)
        return key, value, None if self.first is None else self.places.seen(self.first, key.shape[2], left)


class Cache:
    """The keys and values of all layers, and how many tokens each row holds.

    Parameters
    ----------
    stores : one a layer, in order

    It takes its rows from the first call. `reorder` and `crop` are for what searches: they follow other rows, or take tokens back.

    Examples
    --------
    >>> from numpy_impl.decode.contiguous import ContiguousStore
    >>> cache = Cache([ContiguousStore()])
    >>> for token in range(2):                               # two rows, a token each time
    ...     places = cache.place((2, 1))
    ...     (layer,) = cache.layers(places)
    ...     key, value, mask = layer.append(np.full((2, 1, 1, 1), float(token)), np.zeros((2, 1, 1, 1)))
    ...     cache.advance(places)
    >>> key[0].ravel(), mask, cache.lengths
    (array([0., 1.]), None, array([2, 2]))
    >>> cache.reorder(np.array([1, 1, 0]))
    >>> cache.crop(np.array([1, 0, 2]))
    >>> cache.lengths
    array([1, 0, 2])
    """

    def __init__(self, stores: Sequence[Store]):
        self.stores = list(stores)
        self.lengths: NDArray = np.zeros(0, np.int64)
        self._fresh = True

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return sum(store.nbytes for store in self.stores)

    def place(self, shape: tuple[int, int], real: NDArray | None = None) -> Places:
        """Where (B, T) new tokens stand, of which `real` (B, T) are no padding.

        Raises
        ------
        ValueError   if real has another shape, or the cache holds another number of rows
        """
        booleans("Cache", real=real)
        same_shape("Cache", shape, real=real)
        b, t = shape
        starts = np.zeros(b, np.int64) if self._fresh else self.lengths
        demand("Cache", len(starts) == b, f"the {len(starts)} rows that it holds", rows=b)
        return Places(starts, t, real)

    def layers(self, places: Places) -> list[LayerCache]:
        """What each layer is given for this call."""
        return [LayerCache(store, places) for store in self.stores]

    def advance(self, places: Places) -> None:
        """The tokens of this call have gone through all layers."""
        self.lengths, self._fresh = places.lengths, False

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was; rows (N,) may repeat, and N differ from what was.

        Raises
        ------
        ValueError   if rows are no integers on one axis, or one of them is not there
        """
        given("Cache.reorder", rows=rows)
        integers("Cache.reorder", rows=rows)
        exact_rank("Cache.reorder", 1, rows=rows)
        ids_below("Cache.reorder", len(self.lengths), rows=rows)
        rows = rows.astype(np.int64)
        for store in self.stores:
            store.reorder(rows)
        self.lengths = self.lengths[rows]

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it; lengths (B,).

        Raises
        ------
        ValueError   if lengths are no integers from 0 to what the rows hold
        """
        given("Cache.crop", lengths=lengths)
        integers("Cache.crop", lengths=lengths)
        same_shape("Cache.crop", self.lengths.shape, lengths=lengths)
        fits = bool(((lengths >= 0) & (lengths <= self.lengths)).all())
        demand("Cache.crop", fits, f"lengths from 0 to {self.lengths.tolist()}", lengths=lengths.tolist())
        lengths = lengths.astype(np.int64)                              # a copy: the stores keep it
        for store in self.stores:
            store.crop(lengths)
        self.lengths = lengths
