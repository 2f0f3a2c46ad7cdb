"""What a model remembers of the tokens it has read: the keys and values of every layer. Counts stay on the host, arrays on the device."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from byhand.checks import booleans, demand, exact_rank, given, ids_below, integers, same_shape


class Places:
    """Where the tokens of one call stand.

    starts (B,), lengths (B,)    how many tokens each row holds before the call and after it; on the CPU
    real (B, T)                  which of the new ones are no padding; None: all
    positions (B, T)             of every new token in its row; padding has the position of the token before it, or 0
    start                        the one number in starts, where all rows are alike and nothing is padding; otherwise None
    """

    def __init__(self, starts: Tensor, t: int, real: Tensor | None, device: torch.device | str | None = None):
        self.starts = starts.cpu()
        device = starts.device if device is None else device
        self.real = None if real is None or bool(real.all()) else real.to(device)
        told = torch.ones(len(starts), t, dtype=torch.bool) if self.real is None else self.real.cpu()
        positions = (self.starts[:, None] + told.long().cumsum(-1) - 1).clamp(min=0)
        self.positions = positions.to(device)
        self.lengths = self.starts + told.sum(-1)
        alike = self.real is None and bool((self.starts == self.starts[:1]).all())
        self.start = int(self.starts[0]) if alike and len(starts) else 0 if alike else None
        self.longest = int(self.lengths.max()) if self.start is None else self.start + t
        self._masks: dict[tuple, Tensor] = {}

    def last(self) -> Tensor:
        """(B,) which of the T new tokens is each row's last one that is no padding; −1 where all are."""
        b, t = self.positions.shape
        if self.real is None:
            return torch.full((b,), t - 1, device=self.positions.device)
        return torch.where(self.real, torch.arange(t, device=self.real.device), -1).amax(-1)

    def seen(self, first: Tensor, keys: int, left: int | None) -> Tensor:
        """(B, 1, T, S) booleans: which of the S keys, from position first[b] on, are up to each new token's own, and no more than `left`
        before it."""
        name = (tuple(first.tolist()), keys, left)
        if name not in self._masks:
            at = first.to(self.positions.device)[:, None] + torch.arange(keys, device=self.positions.device)
            ahead = at[:, None, :] - self.positions[:, :, None]  # (B, T, S): of the query
            seen = (ahead <= 0) & (at >= 0)[:, None, :]
            self._masks[name] = (seen if left is None else seen & (ahead >= -left))[:, None]
        return self._masks[name]


class Held(NamedTuple):
    """All that a layer's new tokens may look at: key (B, K, S, E), value (B, K, S, W) and, where rows are not alike, the position of each
    row's first key, first (B,), on the CPU. A key at a position below 0 or not below the row's length is none. Without `first` the S keys
    are the last S of every row."""

    key: Tensor
    value: Tensor
    first: Tensor | None


class Store(Protocol):
    """Keeps one layer's keys and values; each way of keeping them is one."""

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """Keep what is new, key (B, K, T, E) and value (B, K, T, W), and return all there is."""

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was."""

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


class LayerCache:
    """What an attention layer is given: its own store, and where the new tokens stand."""

    def __init__(self, store: Store, places: Places):
        self.store, self.places = store, places
        self.first: Tensor | None = None  # of the keys that were appended last, as Held says

    def append(self, key: Tensor, value: Tensor, *, left: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """key (B, K, T, E), value (B, K, T, W) of the new tokens -> those of all tokens, and which of them each new token sees, no further
        than `left` back, as (B, 1, T, S). Without such a mask the last query stands beside the last key in all rows."""
        exact_rank("LayerCache", 4, key=key, value=value)
        same_shape("LayerCache", (*key.shape[:-1], value.shape[-1]), value=value)
        demand("LayerCache", (key.shape[0], key.shape[2]) == tuple(self.places.positions.shape), "keys of the tokens that were placed",
               key=key, positions=self.places.positions)
        kept = getattr(self.store, "window", None)
        seen = kept is None or (left is not None and left < kept)
        demand("LayerCache", seen, "a store that keeps all that is seen", left=left, window=kept)
        key, value, self.first = self.store.append(key, value, self.places)
        return key, value, None if self.first is None else self.places.seen(self.first, key.shape[2], left)


class Cache:
    """The keys and values of all layers, and how many tokens each row holds, lengths (B,) on the CPU.

    It takes its rows from the first call.
    """

    def __init__(self, stores: Sequence[Store]):
        self.stores = list(stores)
        self.lengths: Tensor = torch.zeros(0, dtype=torch.int64)
        self._fresh = True

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return sum(store.nbytes for store in self.stores)

    def place(self, shape: tuple[int, int], real: Tensor | None = None, *, device: torch.device | str | None = None) -> Places:
        """Where (B, T) new tokens stand, of which `real` (B, T) are no padding."""
        booleans("Cache", real=real)
        same_shape("Cache", shape, real=real)
        b, t = shape
        starts = torch.zeros(b, dtype=torch.int64) if self._fresh else self.lengths
        demand("Cache", len(starts) == b, f"the {len(starts)} rows that it holds", rows=b)
        return Places(starts, t, real, device)

    def layers(self, places: Places) -> list[LayerCache]:
        """What each layer is given for this call."""
        return [LayerCache(store, places) for store in self.stores]

    def advance(self, places: Places) -> None:
        """The tokens of this call have gone through all layers."""
        self.lengths, self._fresh = places.lengths, False

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was; rows (N,) may repeat, and N differ from what was."""
        given("Cache.reorder", rows=rows)
        integers("Cache.reorder", rows=rows)
        exact_rank("Cache.reorder", 1, rows=rows)
        rows = rows.cpu()
        ids_below("Cache.reorder", len(self.lengths), rows=rows)
        rows = rows.long()  # a tensor indexes with few of its integers, and takes uint8 for a mask
        for store in self.stores:
            store.reorder(rows)
        self.lengths = self.lengths[rows]

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it; lengths (B,)."""
        given("Cache.crop", lengths=lengths)
        integers("Cache.crop", lengths=lengths)
        same_shape("Cache.crop", self.lengths.shape, lengths=lengths)
        lengths = lengths.to("cpu", torch.int64, copy=True)  # the stores keep it
        fits = bool(((lengths >= 0) & (lengths <= self.lengths)).all())
        demand("Cache.crop", fits, f"lengths from 0 to {self.lengths.tolist()}", lengths=lengths.tolist())
        for store in self.stores:
            store.crop(lengths)
        self.lengths = lengths
