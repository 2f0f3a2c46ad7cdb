"""Keys and values of a context that stays as it is: what a decoder that reads an encoder's output computes once."""

import numpy as np
from numpy.typing import NDArray

from numpy_impl.decode.cache import Cache, LayerCache, Places, Store


class ContextStore:
    """The keys and values that one layer has made of the context: none before its first call.

    Examples
    --------
    >>> store = ContextStore()
    >>> store.hold(np.zeros((2, 1, 3, 4)), np.ones((2, 1, 3, 4)))
    >>> store.reorder(np.array([1, 1, 0]))
    >>> store.key.shape, store.nbytes
    ((3, 1, 3, 4), 576)
    """

    def __init__(self) -> None:
        self.key: NDArray | None = None                                 # (B, H, S, E)
        self.value: NDArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def hold(self, key: NDArray, value: NDArray) -> None:
        """Keep them for all calls that follow."""
        self.key, self.value = key, value

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            self.key, self.value = self.key[rows], self.value[rows]


class ContextCache(Cache):
    """A Cache whose layers also read a context (B, S, D), of which `mask` (B, S) tells the tokens from the padding; None: all are tokens.

    Parameters
    ----------
    stores : one a layer, in order
    context, mask : what the encoder made

    Its rows are those of the context.

    Examples
    --------
    >>> from numpy_impl.decode.contiguous import ContiguousStore
    >>> cache = ContextCache([ContiguousStore()], np.zeros((2, 3, 4)), None)
    >>> cache.reorder(np.array([1, 1, 0]))
    >>> cache.context.shape, cache.lengths
    ((3, 3, 4), array([0, 0, 0]))
    """

    def __init__(self, stores: list[Store], context: NDArray, mask: NDArray | None):
        super().__init__(stores)
        self.lengths, self._fresh = np.zeros(len(context), np.int64), False
        self.context, self.mask = context, None if mask is None else mask.copy()
        self.contexts = [ContextStore() for _ in stores]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return super().nbytes + self.context.nbytes + sum(store.nbytes for store in self.contexts)

    def both(self, places: Places) -> list[tuple[LayerCache, ContextStore]]:
        """What each layer is given for this call: for its attention to the tokens, and for that to the context."""
        return list(zip(self.layers(places), self.contexts, strict=True))

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was, its context too."""
        super().reorder(rows)
        self.context, self.mask = self.context[rows], None if self.mask is None else self.mask[rows]
        for store in self.contexts:
            store.reorder(rows)
