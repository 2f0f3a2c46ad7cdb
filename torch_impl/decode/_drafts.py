"""Who guesses the next tokens of a text: a smaller model, or the text itself."""

from typing import Any, Protocol

import torch
from torch import Tensor

from byhand.noise import Noise, at
from torch_impl.decode._rows import widened
from torch_impl.decode._text import Text
from torch_impl.decode.gumbel import sample
from torch_impl.ops.softmax import softmax

_NGRAM = 3  # the longest run of tokens that is looked for


class Drafter(Protocol):
    """Guesses, and hears which guesses were kept."""

    def propose(self, text: Text, most: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Up to most[b] tokens behind row b, which are written there: tokens (B, G), what they were drawn from (B, G, V) or None where
        nothing was drawn, and how many there are in each row (B,)."""

    def settle(self, text: Text) -> None:
        """The text is what was kept."""


class ModelDrafter:
    """Draws from a model, under the rules of the text's config; `room` is how many tokens it can read behind each prompt, None: any."""

    def __init__(self, model: Any, cache: Any, text: Text, room: Tensor | None):
        self.model, self.cache, self.room = model, cache, room
        model.extend(text.ids[:, : text.start], cache, real=text.real)
        self.base = cache.lengths.to(text.ids.device)

    def propose(self, text: Text, most: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """One token after the other, each read before the next is drawn."""
        if self.room is not None:
            most = torch.minimum((self.room + 1 - text.counts).clamp(min=0), most)  # the last one is not read
        device = most.device
        g, rows = int(most.max()), torch.arange(len(most), device=device)
        tokens, said = most.new_zeros(len(most), g), []
        for i in range(g):
            drafts = i < most
            read = self.cache.lengths.to(device) - self.base
            unread = torch.where(drafts, text.counts + i - read, 0)  # 1; or 2 where the last draft was kept as a whole
            width = int(unread.max())
            told = torch.arange(width, device=device) < unread[:, None]
            logits = self.model.extend(text.ids[text.behind(read, width)], self.cache, real=told, last=False)[rows, unread - 1, None]
            scores = text.scores(logits, drafts[:, None], ahead=i)[:, 0]  # (B, V)
            tokens[:, i] = sample(scores, noise=at(noise, str(i)))
            text.ids[rows, text.start + text.counts + i] = tokens[:, i]
            said.append(softmax(widened(scores)))
        return tokens, torch.stack(said, 1) if said else None, most

    def settle(self, text: Text) -> None:
        """Forget the tokens that were rejected. The last token of the text it has not read."""
        self.cache.crop(torch.minimum(self.cache.lengths, (self.base + text.counts - 1).cpu()))


class LookUp:
    """What once followed the last tokens may follow them again: up to 3 last tokens are looked for in the text before, the longest run
    first, and of equal runs the first one (Saxena 2023, "Prompt lookup decoding")."""

    def propose(self, text: Text, most: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """The tokens that followed."""
        b, device = len(most), most.device
        columns = int(text.counts.max())
        written = torch.arange(columns, device=device) < text.counts[:, None]
        told = torch.ones(b, text.start, dtype=torch.bool, device=device) if text.real is None else text.real
        real = torch.cat([told, written], 1)
        ids = text.ids[:, : text.start + columns].masked_fill(~real, -1).gather(1, real.int().sort(dim=1, stable=True).indices)
        ids = torch.cat([ids.new_full((b, _NGRAM), -1), ids], 1)  # (B, C), the newest last; −1 is no token
        c, run = ids.shape[1], torch.zeros_like(ids[:, 1:])
        same = torch.ones_like(run, dtype=torch.bool)
        for back in range(_NGRAM):
            same[:, back:] &= ids[:, : -1 - back] == ids[:, -1 - back, None]
            run += same
        first = run.argmax(1) + 1  # where what followed begins
        most = torch.where(run.any(1), torch.minimum(most, c - first), 0)
        g = int(most.max())
        tokens = ids.gather(1, (first[:, None] + torch.arange(g, device=device)).clamp(max=c - 1)).clamp(min=0)
        text.ids[text.behind(text.counts, g)] = tokens
        return tokens, None, most

    def settle(self, text: Text) -> None:
        """Nothing is remembered."""
