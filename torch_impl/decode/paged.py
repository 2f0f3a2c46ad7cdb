"""A cache in pages, as an operating system keeps memory: rows share what they have in common (Kwon et al. 2023, arXiv:2309.06180)."""

from typing import Any

import torch
from torch import Tensor

from byhand.checks import continues, follows, size
from torch_impl.decode.cache import Held, Places


class PageTable:
    """Which pages hold the tokens of which row: token number n of row b lies in page  blocks[b, n div page],  at place  n mod page.

    It is kept on the CPU; what the stores index with lies where the tokens are. Page 0 is never given out, and stands where a row has none.
    """

    def __init__(self, *, page: int = 16):
        size("PageTable", page=page)
        self.page = int(page)
        self.lengths: Tensor = torch.zeros(0, dtype=torch.int64)  # (B,)
        self.references: Tensor = torch.ones(1, dtype=torch.int64)  # (P,) how many rows name each page; page 0 is never free
        self.moves = 0  # how often rows were reordered or cropped
        self._blocks: Tensor = torch.zeros(0, 0, dtype=torch.int64)  # (B, room)
        self._places: Places | None = None  # of the call that was prepared last

    @property
    def blocks(self) -> Tensor:
        """(B, n) the pages of each row, in order; 0 behind its last."""
        return self._blocks[:, : _most(self._pages(self.lengths))]

    @property
    def pages_in_use(self) -> int:
        """How many pages hold something."""
        return int(self.references[1:].count_nonzero())

    @property
    def shared(self) -> int:
        """How many pages hold something for several rows."""
        return int((self.references[1:] > 1).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the table itself."""
        return self._blocks.nbytes + self.references.nbytes

    def prepare(self, places: Places) -> None:
        """Give the new tokens pages, once for all layers.

        Afterwards a store is to copy the pages copied[0] to copied[1], to clear the pages `given`, to write the N new tokens, number
        tokens[1] of rows tokens[0], to `slots` (N,), each of which is page · `page` + place, and to read the pages `named` (B, n).
        """
        if places is self._places:
            return
        rows, had, needed = torch.arange(len(places.starts)), self._pages(places.starts), self._pages(places.lengths)
        column = torch.arange(self._pages(places.longest))
        if not len(self.lengths):
            self._blocks, self.lengths = torch.zeros(len(rows), 0, dtype=torch.int64), places.starts
        follows("PageTable", starts=places.starts, held=self.lengths)
        if self._blocks.shape[1] < len(column):
            self._blocks = _grown(self._blocks, len(column), dim=1)

        on = rows[(places.lengths > places.starts) & (places.starts % self.page > 0)]
        last = self._blocks[on, had[on] - 1]
        left = (last[:, None] == last).tril(-1).sum(1)  # how many have left the page before
        leaves = self.references[last] - left > 1  # of the rows that name a page, at most one goes on in it
        on, last = on[leaves], last[leaves]
        new = (column >= had[:, None]) & (column < needed[:, None])  # (B, n)
        fresh = self._take(len(on) + int(new.sum()))
        copies, given = fresh[: len(on)], fresh[len(on) :]
        self._blocks[on, had[on] - 1] = copies
        self._blocks[:, : len(column)][new] = given
        self._count()

        told = torch.ones(places.positions.shape, dtype=torch.bool) if places.real is None else places.real.cpu()
        of, token = told.nonzero(as_tuple=True)
        positions = places.positions.cpu()[of, token]
        slots = self._blocks[of, positions // self.page] * self.page + positions % self.page
        self._places, self.lengths = places, places.lengths
        device = places.positions.device
        self.copied, self.tokens = (last.to(device), copies.to(device)), (of.to(device), token.to(device))
        self.given, self.slots, self.named = given.to(device), slots.to(device), self._blocks[:, : len(column)].to(device)

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was: it names the same pages."""
        self.moves += 1
        if len(self.lengths):
            self._blocks, self.lengths = self._blocks[rows], self.lengths[rows]
            self._count()

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it: a page that no row needs any longer is free."""
        self.moves += 1
        if len(self.lengths):
            self._blocks[torch.arange(self._blocks.shape[1]) >= self._pages(lengths)[:, None]] = 0
            self.lengths = lengths
            self._count()

    def _pages(self, lengths: Any) -> Any:
        """⌈lengths / page⌉."""
        return -(-lengths // self.page)

    def _take(self, count: int) -> Tensor:
        """The `count` lowest pages that are free; if they do not suffice, there are twice as many as before."""
        free = (self.references == 0).nonzero()[:, 0]
        if len(free) < count:
            self.references = _grown(self.references, len(self.references) + count - len(free), dim=0)
            free = (self.references == 0).nonzero()[:, 0]
        return free[:count]

    def _count(self) -> None:
        """A page's references are the rows that name it: counted, not kept."""
        self.references = torch.bincount(self._blocks.reshape(-1), minlength=len(self.references))
        self.references[0] = 1


class PagedStore:
    """Keys and values in a pool of pages, found through a table: token number n of row b lies in page  table.blocks[b, n div page]."""

    def __init__(self, *, table: PageTable):
        self.table = table
        self.key: Tensor | None = None  # (K, P, page, E)
        self.value: Tensor | None = None  # (K, P, page, W)
        self._moves = table.moves  # how many of the table's this store has asked for

    @property
    def nbytes(self) -> int:
        """Bytes held, free pages included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all."""
        if self.key is not None:
            continues("PagedStore", key=(key, self.key.swapaxes(0, 1)), value=(value, self.value.swapaxes(0, 1)))
        self.table.prepare(places)
        self.key, self.value = self._written(self.key, key), self._written(self.value, value)
        first = None if places.start is not None else torch.zeros(len(key), dtype=torch.int64)
        return Held(self._gathered(self.key, places.longest), self._gathered(self.value, places.longest), first)

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was."""
        if self._moves == self.table.moves:  # the first of the layers: the others find it done
            self.table.reorder(rows)
        self._moves = self.table.moves

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if self._moves == self.table.moves:
            self.table.crop(lengths)
        self._moves = self.table.moves

    def _written(self, pool: Tensor | None, new: Tensor) -> Tensor:
        """The pool with new (B, K, T, E) in its pages."""
        k, e, table = new.shape[1], new.shape[3], self.table
        if pool is None:
            pool = new.new_zeros(k, len(table.references), table.page, e)
        if pool.shape[1] < len(table.references):
            pool = _grown(pool, len(table.references), dim=1)
        pool[:, table.copied[1]] = pool[:, table.copied[0]]
        pool[:, table.given] = 0
        of, token = table.tokens
        pool.view(k, pool.shape[1] * table.page, e)[:, table.slots] = new[of, :, token].transpose(0, 1)
        return pool

    def _gathered(self, pool: Tensor, longest: int) -> Tensor:
        """(B, K, S, E): the pages of each row side by side."""
        k, _, page, e = pool.shape
        b, n = self.table.named.shape
        return pool.index_select(1, self.table.named.reshape(-1)).view(k, b, n * page, e)[:, :, :longest].transpose(0, 1)


def _most(counts: Tensor) -> int:
    return int(counts.max()) if len(counts) else 0


def _grown(array: Tensor, least: int, *, dim: int) -> Tensor:
    """The tensor with zeros behind it along the dimension: at least `least` entries, and at least twice as many as before."""
    shape = list(array.shape)
    shape[dim] = max(least, 2 * shape[dim])
    grown = array.new_zeros(shape)
    grown[tuple(slice(n) for n in array.shape)] = array
    return grown
