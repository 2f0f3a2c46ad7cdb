"""Texts of a batch that grow at different speeds, several tokens at a time."""

import torch
from torch import Tensor

from byhand.configs.generation import GenerationConfig
from torch_impl.decode.process import process
from torch_impl.decode.temperature import temperature


class Text:
    """B prompts, and what has been written behind them; all on the device of the prompts.

    ids (B, T + N)   the prompts, padding and all, and from column T on what was written, and perhaps drafted behind it
    real (B, T)      which tokens of the prompts are no padding; None: all
    start            T
    counts (B,)      how many tokens have been written
    ends (B,)        how many there may be
    live (B,)        which rows are not at their end
    """

    def __init__(self, prompts: Tensor, real: Tensor | None, ends: Tensor, *, room: int, config: GenerationConfig):
        b, self.start = prompts.shape
        self.ids = torch.cat([prompts, prompts.new_zeros(b, room)], 1)
        self.real, self.ends, self.config = real, ends, config
        self.counts = torch.zeros_like(ends)
        self.live = ends > 0
        self.end_tokens = torch.tensor(config.eos, dtype=torch.int64, device=prompts.device)

    def behind(self, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Where in ids the written tokens first[b] … first[b] + count − 1 of each row stand."""
        rows = torch.arange(len(first), device=first.device)
        return rows[:, None], self.start + first[:, None] + torch.arange(count, device=first.device)

    def told(self, columns: int) -> Tensor | None:
        """(B, T + columns) which of the prompts' tokens, and of as many written ones, are no padding."""
        return None if self.real is None else torch.cat([self.real, self.real.new_ones(len(self.real), columns)], 1)

    def scores(self, logits: Tensor, wanted: Tensor, ahead: int = 0) -> Tensor:
        """logits (B, J, V) behind token counts + ahead + j of each row -> what config's rules make of them where `wanted` (B, J) asks, and
        0 elsewhere. With a temperature of 0 the best token alone is left."""
        behind = self.counts[:, None] + ahead + torch.arange(logits.shape[1], device=logits.device)
        y = torch.zeros_like(logits)
        for n in behind[wanted].unique().tolist():
            rows, at = (wanted & (behind == n)).nonzero(as_tuple=True)
            told = self.told(n)
            y[rows, at] = process(logits[rows, at], history=self.ids[rows, : self.start + n], generated=n, config=self.config,
                                  real=None if told is None else told[rows])
        return y if self.config.temperature else temperature(y, temperature=0)

    def append(self, kept: Tensor, token: Tensor) -> Tensor:
        """Take the kept[b] tokens that stand drafted behind each row, and `token` (B,) behind those, up to an end token among them; how
        many were taken (B,)."""
        rows, columns = self.behind(self.counts, int(kept.max()) + 1)
        self.ids[rows[:, 0], columns[:, 0] + kept] = token
        ends = torch.isin(self.ids[rows, columns], self.end_tokens)
        ends &= torch.arange(columns.shape[1], device=kept.device) <= kept[:, None]
        taken = (torch.where(ends.any(1), ends.long().argmax(1), kept) + 1) * self.live
        self.counts = self.counts + taken
        self.live = self.live & (self.counts < self.ends) & ~ends.any(1)
        return taken

    def sequences(self, pad: int) -> Tensor:
        """(B, L) what was written, and the pad behind it."""
        n = int(self.counts.max()) if len(self.counts) else 0
        written = torch.arange(n, device=self.counts.device) < self.counts[:, None]
        return torch.where(written, self.ids[:, self.start : self.start + n], pad)

    def reasons(self) -> tuple[str, ...]:
        """Why each row ended, as `Generated` says it."""
        last = self.ids[torch.arange(len(self.ids), device=self.ids.device), self.start + self.counts - 1]
        ended = torch.isin(last, self.end_tokens) & (self.counts > 0)
        short = self.counts < self.config.max_new_tokens
        return tuple("eos" if e else "context" if s else "length" for e, s in zip(ended.tolist(), short.tolist(), strict=True))
