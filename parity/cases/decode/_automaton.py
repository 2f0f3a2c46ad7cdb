"""The smallest language model there is: what has been read is one of S states, and each state has its logits."""

from typing import Any, NamedTuple

import numpy as np


class _Sizes(NamedTuple):
    vocabulary: int


class AutomatonCache:
    """The state of each row, and how many tokens it has read."""

    def __init__(self) -> None:
        self.states: Any = None
        self.calls: list[tuple[int, ...]] = []           # the shapes that were read

    def reorder(self, rows: Any) -> None:
        """Row n becomes what row rows[n] was."""
        self.states = self.states[rows]


class Automaton:
    """state ← (3 · state + token + 1) mod S,  logits = table[state];  table (S, V).

    The order of the tokens matters, so that a row that goes on from another row's state is noticed. Padding changes no state.
    """

    def __init__(self, side: Any, table: Any):
        self.table, self.config = table, _Sizes(table.shape[1])
        self._side = side

    def new_cache(self) -> AutomatonCache:
        """No row has read anything."""
        return AutomatonCache()

    def extend(self, ids: Any, cache: AutomatonCache, *, real: Any = None) -> Any:
        """ids (B, T) -> logits (B, V) behind the last of them."""
        cache.calls.append(tuple(ids.shape))
        tokens = self._side.numpy(ids)
        counted = np.ones(tokens.shape, bool) if real is None else self._side.numpy(real)
        states = np.zeros(len(tokens), np.int64) if cache.states is None else self._side.numpy(cache.states)
        for token, counts in zip(tokens.T, counted.T, strict=True):
            states = np.where(counts, (3 * states + token + 1) % len(self.table), states)
        cache.states = self._side.array(states)
        return self.table[cache.states]
