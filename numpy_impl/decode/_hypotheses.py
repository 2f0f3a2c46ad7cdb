"""What a group of beams holds while it searches: the texts it is still writing, and the best of those it has finished."""

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.configs.generation import GenerationConfig


class Hypotheses:
    """The w beams of one group, for each of B prompts.

    sums (B, w)      Σ log p of each running text, best first; −∞ where there is none
    tokens (B, w, L) its tokens, L = max_new_tokens; the pad stands where none has come yet
    scores (B, w), finished (B, w, L), lengths (B, w)   the finished texts, best first; score −∞ and length 0 where there is none
    open (B,)        whether a running text may still take a place among the finished ones
    said (B, w)      the tokens that the last step chose; −1 where the search was over
    """

    def __init__(self, prompts: int, width: int, *, config: GenerationConfig, pad: int, dtype: DTypeLike):
        self.config, self.generated = config, 0
        self.sums = np.full((prompts, width), -np.inf, dtype)
        self.sums[:, 0] = 0                               # all beams begin alike: were they all alive, they would all choose the same
        self.tokens = np.full((prompts, width, config.max_new_tokens), pad)
        self.scores = np.full((prompts, width), -np.inf, dtype)
        self.finished, self.lengths = self.tokens.copy(), np.zeros((prompts, width), np.int64)
        self.open = np.ones(prompts, bool)

    def advance(self, scores: NDArray) -> NDArray:
        """One more token: scores (B, w, V) of each text's next one -> parents (B, w), which beam each running text now continues."""
        b, w, v = scores.shape
        config, row = self.config, np.arange(b)[:, None]
        self.generated += 1
        n = self.generated

        # Each text has as many ways to end as there are end tokens: among so many candidates, w do not end.
        sums = (self.sums[:, :, None] + scores).reshape(b, w * v)
        best = largest(sums, min((1 + len(config.eos)) * w, w * v))                     # (B, C)
        sums, (parents, chosen) = sums[row, best], np.divmod(best, v)
        tokens = self.tokens[row, parents]                                              # (B, C, L)
        tokens[:, :, n - 1] = chosen
        ends, over = np.isin(chosen, config.eos), n == config.max_new_tokens

        # Only the w best candidates may finish. The others are there to go on in place of those.
        ready = (ends | over) & self.open[:, None]
        ready[:, w:] = False
        scores = np.concatenate([self.scores, np.where(ready, sums / math.pow(n, config.length_penalty), -np.inf)], 1)
        kept = largest(scores, w)
        self.scores = scores[row, kept]
        self.finished = np.concatenate([self.finished, tokens], 1)[row, kept]
        self.lengths = np.concatenate([self.lengths, np.full_like(best, n)], 1)[row, kept]

        alive = np.where(ends, -np.inf, sums)
        running = largest(alive, w)
        self.sums, self.tokens = alive[row, running], tokens[row, running]
        self.said = np.where(self.open[:, None], chosen[row, running], -1)

        # More tokens only lower a sum. Divided by length**penalty it may rise, and then the bound of its score is at the greatest length.
        # Unless that is asked for, what the best would score if it ended here decides, which is quicker and not exact. With one group the
        # best is that of those that go on, with several that of all candidates: transformers has it so, in version 5 and in its groups.
        best_sums = self.sums[:, 0] if config.groups == 1 else sums[:, 0]
        lengths = (n, config.max_new_tokens) if config.early_stopping == "never" else (n,)
        worst = self.scores[:, -1]
        self.open &= (best_sums / max(math.pow(length, config.length_penalty) for length in lengths) > worst) & (not over)
        if config.early_stopping is True:
            self.open &= worst == -np.inf
        return parents[row, running]


def largest(x: NDArray, k: int) -> NDArray:
    """(B, k) where the k largest of each row of x (B, N) stand, the largest first; of equals the one that stands first.

    Examples
    --------
    >>> largest(np.array([[0.0, 2.0, 1.0, 2.0, 1.0]]), 3)
    array([[1, 3, 2]])
    """
    rows, found = np.nonzero(x >= np.partition(x, -k, 1)[:, -k, None])       # the k-th largest of a row and above; more if several equal it
    order = np.lexsort((-x[rows, found], rows))                              # row by row, the largest first; equals stay as they stand
    begins = np.searchsorted(rows, np.arange(len(x)))[:, None]
    return found[order[begins + np.arange(k)]]
