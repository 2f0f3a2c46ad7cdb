"""A language model of a few states that can forget: its cache is the text itself, which is read anew in every call."""

from typing import Any, NamedTuple

import numpy as np


class _Sizes(NamedTuple):
    vocabulary: int
    max_length: int | None


class ReaderCache:
    """What each row has read."""

    def __init__(self, side: Any) -> None:
        self.side = side
        self.texts: list[list[int]] = []
        self.lengths: Any = side.array(np.zeros(0, np.int64))
        self.calls: list[tuple[int, ...]] = []           # the shapes that were read

    def reorder(self, rows: Any) -> None:
        """Row n becomes what row rows[n] was."""
        self._hold([self.texts[row] for row in self.side.numpy(rows)])

    def crop(self, lengths: Any) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if any(n > len(text) or n < 0 for text, n in zip(self.texts, lengths, strict=True)):
            raise IndexError("more than there is")
        self._hold([text[:n] for text, n in zip(self.texts, lengths, strict=True)])

    def _hold(self, texts: list[list[int]]) -> None:
        self.texts, self.lengths = texts, self.side.array(np.array([len(text) for text in texts], np.int64))


class Reader:
    """state ← (3 · state + token + 1) mod S from state 0,  logits = table[state],  h = hidden[state];  table (S, V), hidden (S, D).

    The order of the tokens matters. More than `max_length` of them are refused, and a row without one if the last is asked for.
    """

    def __init__(self, side: Any, table: Any, hidden: Any = None, max_length: int | None = None):
        self.table, self.hidden, self.config = table, hidden, _Sizes(table.shape[1], max_length)
        self._side = side

    def new_cache(self) -> ReaderCache:
        """No row has read anything."""
        return ReaderCache(self._side)

    def extend(self, ids: Any, cache: ReaderCache, *, real: Any = None, last: bool = True) -> Any:
        """ids (B, T) -> logits (B, V) behind the last token of each row, or (B, T, V) behind all."""
        states, final = self._read(ids, cache, real, last)
        return self.table[final if last else states]

    def extend_hidden(self, ids: Any, cache: ReaderCache, *, real: Any = None, last: bool = True) -> tuple[Any, Any]:
        """As `extend`, and h (B, T, D)."""
        states, final = self._read(ids, cache, real, last)
        return self.table[final if last else states], self.hidden[states]

    def _read(self, ids: Any, cache: ReaderCache, real: Any, last: bool) -> tuple[Any, Any]:
        tokens = self._side.numpy(ids)
        cache.calls.append(tokens.shape)
        told = np.ones(tokens.shape, bool) if real is None else self._side.numpy(real)
        texts, states = cache.texts or [[] for _ in tokens], np.zeros(tokens.shape, np.int64)
        texts = [text + row[real].tolist() for text, row, real in zip(texts, tokens, told, strict=True)]
        if any(len(text) > (self.config.max_length or len(text)) for text in texts):
            raise IndexError("more tokens than the model takes")
        if last and not told.any(1).all():
            raise IndexError("a row without a token")
        final = np.zeros(len(texts), np.int64)
        for b, text in enumerate(texts):
            passed = [0]
            for token in text:
                passed.append((3 * passed[-1] + token + 1) % len(self.table))
            final[b] = passed[-1]
            states[b] = [passed[len(text) - told[b, j + 1 :].sum()] * told[b, j] for j in range(tokens.shape[1])]     # padding: anything
        cache._hold(texts)
        return self._side.array(states), self._side.array(final)
