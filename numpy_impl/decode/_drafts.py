"""Who guesses the next tokens of a text: a smaller model, or the text itself."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.noise import Noise, at
from numpy_impl.decode._history import behind_padding
from numpy_impl.decode._text import Text
from numpy_impl.decode.gumbel import sample
from numpy_impl.ops.softmax import softmax

_NGRAM = 3  # the longest run of tokens that is looked for


class Drafter(Protocol):
    """Guesses, and hears which guesses were kept."""

    def propose(self, text: Text, most: NDArray, noise: Noise | None) -> tuple[NDArray, NDArray | None, NDArray]:
        """Up to most[b] tokens behind row b, which are written there: tokens (B, G), what they were drawn from (B, G, V) or None where
        nothing was drawn, and how many there are in each row (B,)."""

    def settle(self, text: Text) -> None:
        """The text is what was kept."""


class ModelDrafter:
    """Draws from a model, under the rules of the text's config.

    room   how many tokens the model can read behind each prompt; None: any number
    """

    def __init__(self, model: Any, cache: Any, text: Text, room: NDArray | None):
        self.model, self.cache, self.room = model, cache, room
        model.extend(text.ids[:, : text.start], cache, real=text.real)
        self.base = cache.lengths                                               # the tokens that it holds before the first written one

    def propose(self, text: Text, most: NDArray, noise: Noise | None) -> tuple[NDArray, NDArray | None, NDArray]:
        """One token after the other, each read before the next is drawn."""
        if self.room is not None:
            most = np.clip(self.room + 1 - text.counts, 0, most)                # the last one is not read
        g, rows = int(most.max()), np.arange(len(most))
        tokens, said = np.zeros((len(most), g), np.int64), []
        for i in range(g):
            drafts = i < most
            read = self.cache.lengths - self.base
            unread = np.where(drafts, text.counts + i - read, 0)                # 1; or 2 where the last draft was kept as a whole
            new = text.behind(read, int(unread.max()))
            told = np.arange(int(unread.max())) < unread[:, None]
            logits = self.model.extend(text.ids[new], self.cache, real=told, last=False)[rows, unread - 1, None]
            scores = text.scores(logits, drafts[:, None], ahead=i)[:, 0]        # (B, V)
            tokens[:, i] = sample(scores, noise=at(noise, str(i)))
            text.ids[rows, text.start + text.counts + i] = tokens[:, i]
            said.append(softmax(scores)[0])
        return tokens, np.stack(said, 1) if said else None, most

    def settle(self, text: Text) -> None:
        """Forget the tokens that were rejected. The last token of the text it has not read."""
        self.cache.crop(np.minimum(self.cache.lengths, self.base + text.counts - 1))


class LookUp:
    """What once followed the last tokens may follow them again: up to 3 last tokens are looked for in the text before, the longest run
    first, and of equal runs the first one (Saxena 2023, "Prompt lookup decoding")."""

    def propose(self, text: Text, most: NDArray, noise: Noise | None) -> tuple[NDArray, NDArray | None, NDArray]:
        """The tokens that followed."""
        columns = int(text.counts.max())
        written = np.arange(columns) < text.counts[:, None]
        told = np.ones((len(most), text.start), bool) if text.real is None else text.real
        ids, real = behind_padding(text.ids[:, : text.start + columns], np.concatenate([told, written], 1))     # (B, C), newest last
        ids = np.concatenate([np.full((len(most), _NGRAM), -1), np.where(real, ids, -1)], 1)                    # −1 is no token
        same, run = np.ones(ids[:, 1:].shape, bool), np.zeros(ids[:, 1:].shape, np.int64)
        for back in range(_NGRAM):                                              # of each place but the last: how long a run ends there
            same[:, back:] &= ids[:, : -1 - back] == ids[:, -1 - back, None]
            run += same
        first = run.argmax(1) + 1                                               # where what followed begins
        most = np.where(run.any(1), np.minimum(most, ids.shape[1] - first), 0)
        g = int(most.max())
        tokens = np.maximum(np.take_along_axis(ids, np.minimum(first[:, None] + np.arange(g), ids.shape[1] - 1), 1), 0)
        text.ids[text.behind(text.counts, g)] = tokens
        return tokens, None, most

    def settle(self, text: Text) -> None:
        """Nothing is remembered."""
