"""A cache in pages, as an operating system keeps memory: rows share what they have in common (Kwon et al. 2023, arXiv:2309.06180)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import continues, follows, size
from numpy_impl.decode.cache import Held, Places


class PageTable:
    """Which pages hold the tokens of which row: token number n of row b lies in page  blocks[b, n div page],  at place  n mod page.

    Parameters
    ----------
    page : int   tokens in a page

    One table serves the stores of all layers, which have the same tokens at the same places. A page that several rows name holds what
    they have in common, and is there once. It is free again when no row names it. Page 0 is never given out: it holds nothing, and
    stands where a row has no page.

    Raises
    ------
    ValueError   if page is no positive integer, or new tokens do not follow those that are held

    Examples
    --------
    >>> table = PageTable(page=4)
    >>> table.prepare(Places(np.array([0]), 6, None))                # six tokens: two pages
    >>> table.reorder(np.array([0, 0]))                              # two rows that share them
    >>> table.blocks, table.pages_in_use, table.shared
    (array([[1, 2],
           [1, 2]]), 2, 2)
    >>> table.prepare(Places(np.array([6, 6]), 1, None))             # each goes on in a way of its own: the first on a copy
    >>> table.blocks, table.copied
    (array([[1, 3],
           [1, 2]]), (array([2]), array([3])))
    """

    def __init__(self, *, page: int = 16):
        size("PageTable", page=page)
        self.page = int(page)
        self.lengths: NDArray = np.zeros(0, np.int64)                   # (B,)
        self.references: NDArray = np.ones(1, np.int64)                 # (P,) how many rows name each page; page 0 is never free
        self.moves = 0                                                  # how often rows were reordered or cropped
        self._blocks: NDArray = np.zeros((0, 0), np.int64)              # (B, room)
        self._places: Places | None = None                              # of the call that was prepared last

    @property
    def blocks(self) -> NDArray:
        """(B, n) the pages of each row, in order; 0 behind its last."""
        return self._blocks[:, : self._pages(self.lengths).max(initial=0)]

    @property
    def pages_in_use(self) -> int:
        """How many pages hold something."""
        return int(np.count_nonzero(self.references[1:]))

    @property
    def shared(self) -> int:
        """How many pages hold something for several rows."""
        return int(np.count_nonzero(self.references[1:] > 1))

    @property
    def nbytes(self) -> int:
        """Bytes of the table itself."""
        return self._blocks.nbytes + self.references.nbytes

    def prepare(self, places: Places) -> None:
        """Give the new tokens pages. Every layer asks for it; it is done for the first, and the others find it done.

        Afterwards a store is to copy the pages copied[0] to copied[1], and to clear the pages `given`, which may hold what another row
        left. Then the N new tokens that are no padding, number tokens[1] of rows tokens[0], go to `slots` (N,), each of which is
        page · `page` + place. What each row then holds is in the pages `named` (B, n).
        """
        if places is self._places:
            return
        rows, had, needed = np.arange(len(places.starts)), self._pages(places.starts), self._pages(places.lengths)
        column = np.arange(self._pages(places.longest))
        if not len(self.lengths):
            self._blocks, self.lengths = np.zeros((len(rows), 0), np.int64), places.starts
        follows("PageTable", starts=places.starts, held=self.lengths)
        if self._blocks.shape[1] < len(column):
            self._blocks = _grown(self._blocks, len(column), axis=1)

        # A row goes on in its last page if that is not full. If k rows name the page and m of them go on, they leave it one by one, each
        # for a copy; where no other is left, which is the last one's case if m = k, there is no one to leave it to, and the row stays.
        on = rows[(places.lengths > places.starts) & (places.starts % self.page > 0)]
        last = self._blocks[on, had[on] - 1]
        left = np.tril(last[:, None] == last, -1).sum(1)                # how many have left the page before
        leaves = self.references[last] - left > 1
        on, last = on[leaves], last[leaves]
        new = (column >= had[:, None]) & (column < needed[:, None])     # (B, n)
        fresh = self._take(len(on) + int(new.sum()))
        self.copied, self.given = (last, fresh[: len(on)]), fresh[len(on) :]
        self._blocks[on, had[on] - 1] = self.copied[1]
        self._blocks[:, : len(column)][new] = self.given
        self._count()

        of, token = np.nonzero(np.ones(places.positions.shape, bool) if places.real is None else places.real)
        page, place = np.divmod(places.positions[of, token], self.page)
        self.tokens, self.slots = (of, token), self._blocks[of, page] * self.page + place
        self.named = self._blocks[:, : len(column)]
        self._places, self.lengths = places, places.lengths

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was: it names the same pages."""
        self.moves += 1
        if len(self.lengths):
            self._blocks, self.lengths = self._blocks[rows], self.lengths[rows]
            self._count()

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it: a page that no row needs any longer is free."""
        self.moves += 1
        if len(self.lengths):
            self._blocks[np.arange(self._blocks.shape[1]) >= self._pages(lengths)[:, None]] = 0
            self.lengths = lengths
            self._count()

    def _pages(self, lengths: Any) -> Any:
        """⌈lengths / page⌉."""
        return -(-lengths // self.page)

    def _take(self, count: int) -> NDArray:
        """The `count` lowest pages that are free; if they do not suffice, there are twice as many as before."""
        free = np.flatnonzero(self.references == 0)
        if len(free) < count:
            self.references = _grown(self.references, len(self.references) + count - len(free), axis=0)
            free = np.flatnonzero(self.references == 0)
        return free[:count]

    def _count(self) -> None:
        """A page's references are the rows that name it: counted, not kept, so that none is ever lost or given out twice."""
        self.references = np.bincount(self._blocks.ravel(), minlength=len(self.references))
        self.references[0] = 1


class PagedStore:
    """Keys and values in a pool of pages, found through a table: token number n of row b lies in page  table.blocks[b, n div page].

    Parameters
    ----------
    table : PageTable   that of the model, the same for the stores of all layers

    Rows take memory for what they hold, up to a page each, and none for the longest of them; rows that begin alike, beams, say, keep
    the beginning once. To reorder rows copies nothing. `append` gathers the pages of each row side by side.

    Examples
    --------
    >>> store, key = PagedStore(table=PageTable(page=2)), np.arange(3.0).reshape(1, 1, 3, 1)
    >>> held = store.append(key, key, Places(np.array([0]), 3, None))
    >>> store.reorder(np.array([0, 0]))
    >>> new = np.array([[[[8.0]]], [[[9.0]]]])
    >>> store.append(new, new, Places(np.array([3, 3]), 1, None)).key[:, 0, :, 0]
    array([[0., 1., 2., 8.],
           [0., 1., 2., 9.]])
    >>> store.table.pages_in_use                                     # the first is in both rows
    3
    """

    def __init__(self, *, table: PageTable):
        self.table = table
        self.key: NDArray | None = None                                 # (K, P, page, E)
        self.value: NDArray | None = None                               # (K, P, page, W)
        self._moves = table.moves                                       # how many of the table's this store has asked for

    @property
    def nbytes(self) -> int:
        """Bytes held, free pages included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: NDArray, value: NDArray, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all."""
        if self.key is not None:
            continues("PagedStore", key=(key, self.key.swapaxes(0, 1)), value=(value, self.value.swapaxes(0, 1)))
        self.table.prepare(places)
        self.key, self.value = self._written(self.key, key), self._written(self.value, value)
        first = None if places.start is not None else np.zeros(len(key), np.int64)
        return Held(self._gathered(self.key, places.longest), self._gathered(self.value, places.longest), first)

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was."""
        if self._moves == self.table.moves:                             # the first of the layers: the others find it done
            self.table.reorder(rows)
        self._moves = self.table.moves

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if self._moves == self.table.moves:
            self.table.crop(lengths)
        self._moves = self.table.moves

    def _written(self, pool: NDArray | None, new: NDArray) -> NDArray:
        """The pool with new (B, K, T, E) in its pages."""
        k, e, table = new.shape[1], new.shape[3], self.table
        if pool is None:
            pool = np.zeros((k, len(table.references), table.page, e), new.dtype)
        if pool.shape[1] < len(table.references):
            pool = _grown(pool, len(table.references), axis=1)
        pool[:, table.copied[1]] = pool[:, table.copied[0]]
        pool[:, table.given] = 0                                        # what is hidden is to be finite
        of, token = table.tokens
        pool.reshape(k, pool.shape[1] * table.page, e)[:, table.slots] = new[of, :, token].swapaxes(0, 1)
        return pool

    def _gathered(self, pool: NDArray, longest: int) -> NDArray:
        """(B, K, S, E): the pages of each row side by side."""
        k, _, page, e = pool.shape
        b, n = self.table.named.shape
        return pool.take(self.table.named, axis=1).reshape(k, b, n * page, e)[:, :, :longest].swapaxes(0, 1)


def _grown(array: NDArray, least: int, *, axis: int) -> NDArray:
    """The array with zeros behind it along the axis: at least `least` entries, and at least twice as many as before."""
    shape = list(array.shape)
    shape[axis] = max(least, 2 * shape[axis])
    grown = np.zeros(shape, array.dtype)
    grown[tuple(slice(n) for n in array.shape)] = array
    return grown
