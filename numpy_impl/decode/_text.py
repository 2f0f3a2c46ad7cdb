"""Texts of a batch that grow at different speeds, several tokens at a time."""

import numpy as np
from numpy.typing import NDArray

from byhand.configs.generation import GenerationConfig
from numpy_impl.decode.process import process
from numpy_impl.decode.temperature import temperature


class Text:
    """B prompts, and what has been written behind them.

    ids (B, T + N)   the prompts, padding and all, and from column T on what was written, and perhaps drafted behind it
    real (B, T)      which tokens of the prompts are no padding; None: all
    start            T
    counts (B,)      how many tokens have been written
    ends (B,)        how many there may be
    live (B,)        which rows are not at their end
    """

    def __init__(self, prompts: NDArray, real: NDArray | None, ends: NDArray, *, room: int, config: GenerationConfig):
        b, self.start = prompts.shape
        self.ids = np.concatenate([prompts, np.zeros((b, room), np.int64)], 1)
        self.real, self.ends, self.config = real, ends, config
        self.counts: NDArray = np.zeros(b, np.int64)
        self.live: NDArray = ends > 0

    def behind(self, first: NDArray, count: int) -> tuple[NDArray, NDArray]:
        """Where in ids the written tokens first[b] … first[b] + count − 1 of each row stand."""
        return np.arange(len(first))[:, None], self.start + first[:, None] + np.arange(count)

    def told(self, columns: int) -> NDArray | None:
        """(B, T + columns) which of the prompts' tokens, and of as many written ones, are no padding."""
        return None if self.real is None else np.concatenate([self.real, np.ones((len(self.real), columns), bool)], 1)

    def scores(self, logits: NDArray, wanted: NDArray, ahead: int = 0) -> NDArray:
        """logits (B, J, V) behind token counts + ahead + j of each row -> what config's rules make of them where `wanted` (B, J) asks, and
        0 elsewhere. With a temperature of 0 the best token alone is left."""
        behind = self.counts[:, None] + ahead + np.arange(logits.shape[1])
        y = np.zeros_like(logits)
        for n in np.unique(behind[wanted]).tolist():            # the rules are told one number of written tokens
            rows, at = np.nonzero(wanted & (behind == n))
            told = self.told(n)
            y[rows, at] = process(logits[rows, at], history=self.ids[rows, : self.start + n], generated=n, config=self.config,
                                  real=None if told is None else told[rows])
        return y if self.config.temperature else temperature(y, temperature=0)

    def append(self, kept: NDArray, token: NDArray) -> NDArray:
        """Take the kept[b] tokens that stand drafted behind each row, and `token` (B,) behind those, up to an end token among them; how
        many were taken (B,)."""
        run = self.behind(self.counts, int(kept.max()) + 1)
        self.ids[run[0][:, 0], run[1][:, 0] + kept] = token
        ends = np.isin(self.ids[run], self.config.eos) & (np.arange(run[1].shape[1]) <= kept[:, None])
        taken = (np.where(ends.any(1), ends.argmax(1), kept) + 1) * self.live
        self.counts = self.counts + taken
        self.live = self.live & (self.counts < self.ends) & ~ends.any(1)
        return taken

    def sequences(self, pad: int) -> NDArray:
        """(B, L) what was written, and the pad behind it."""
        n = int(self.counts.max(initial=0))
        return np.where(np.arange(n) < self.counts[:, None], self.ids[:, self.start : self.start + n], pad)

    def reasons(self) -> tuple[str, ...]:
        """Why each row ended, as `Generated` says it."""
        last = self.ids[np.arange(len(self.ids)), self.start + self.counts - 1]
        ended = np.isin(last, self.config.eos) & (self.counts > 0)
        return tuple(np.where(ended, "eos", np.where(self.counts < self.config.max_new_tokens, "context", "length")).tolist())
