"""Keys and values of a context that stays as it is: what a decoder that reads an encoder's output computes once."""

from torch import Tensor

from torch_impl.decode.cache import Cache, LayerCache, Places, Store


class ContextStore:
    """The keys and values that one layer has made of the context: none before its first call."""

    def __init__(self) -> None:
        self.key: Tensor | None = None  # (B, H, S, E)
        self.value: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def hold(self, key: Tensor, value: Tensor) -> None:
        """Keep them for all calls that follow."""
        self.key, self.value = key, value

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            rows = rows.to(self.key.device)
            self.key, self.value = self.key[rows], self.value[rows]


class ContextCache(Cache):
    """A Cache whose layers also read a context (B, S, D), of which `mask` (B, S) tells the tokens from the padding; None: all are tokens.
    Its rows are those of the context."""

    def __init__(self, stores: list[Store], context: Tensor, mask: Tensor | None):
        super().__init__(stores)
        self.lengths, self._fresh = self.lengths.new_zeros(len(context)), False
        self.context, self.mask = context, None if mask is None else mask.clone()
        self.contexts = [ContextStore() for _ in stores]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        return super().nbytes + self.context.nbytes + sum(store.nbytes for store in self.contexts)

    def both(self, places: Places) -> list[tuple[LayerCache, ContextStore]]:
        """What each layer is given for this call: for its attention to the tokens, and for that to the context."""
        return list(zip(self.layers(places), self.contexts, strict=True))

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was, its context too."""
        super().reorder(rows)
        rows = rows.long()
        here = rows.to(self.context.device)
        self.context, self.mask = self.context[here], None if self.mask is None else self.mask[here]
        for store in self.contexts:
            store.reorder(rows)
