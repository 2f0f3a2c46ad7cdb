"""What a group of beams holds while it searches: the texts it is still writing, and the best of those it has finished."""

import math

import torch
from torch import Tensor

from byhand.configs.generation import GenerationConfig


class Hypotheses:
    """The w beams of one group, for each of B prompts.

    sums (B, w)      Σ log p of each running text, best first; −∞ where there is none
    tokens (B, w, L) its tokens, L = max_new_tokens; the pad stands where none has come yet
    scores (B, w), finished (B, w, L), lengths (B, w)   the finished texts, best first; score −∞ and length 0 where there is none
    open (B,)        whether a running text may still take a place among the finished ones
    said (B, w)      the tokens that the last step chose; −1 where the search was over
    """

    said: Tensor

    def __init__(self, prompts: int, width: int, *, config: GenerationConfig, pad: int, like: Tensor):
        self.config, self.generated = config, 0
        self.sums = like.new_full((prompts, width), -torch.inf)
        self.sums[:, 0] = 0
        self.tokens = torch.full((prompts, width, config.max_new_tokens), pad, device=like.device)
        self.scores = torch.full_like(self.sums, -torch.inf)
        self.finished, self.lengths = self.tokens, torch.zeros_like(self.sums, dtype=torch.int64)
        self.open = torch.ones(prompts, dtype=torch.bool, device=like.device)
        self._ends = torch.tensor(config.eos, dtype=torch.int64, device=like.device)

    def advance(self, scores: Tensor) -> Tensor:
        """One more token: scores (B, w, V) of each text's next one -> parents (B, w), which beam each running text now continues."""
        b, w, v = scores.shape
        config = self.config
        self.generated += 1
        n = self.generated

        sums = (self.sums[:, :, None] + scores).reshape(b, w * v)
        best = largest(sums, min((1 + len(config.eos)) * w, w * v))               # (B, C)
        sums, parents, chosen = sums.gather(1, best), best // v, best % v
        tokens = _rows(self.tokens, parents)                                            # (B, C, L)
        tokens[:, :, n - 1] = chosen
        ends, over = torch.isin(chosen, self._ends), n == config.max_new_tokens

        ready = (ends | over) & self.open[:, None]
        ready[:, w:] = False
        scored = (sums / math.pow(n, config.length_penalty)).masked_fill(~ready, -torch.inf)
        scores = torch.cat([self.scores, scored], 1)
        kept = largest(scores, w)
        self.scores = scores.gather(1, kept)
        self.finished = _rows(torch.cat([self.finished, tokens], 1), kept)
        self.lengths = torch.cat([self.lengths, torch.full_like(best, n)], 1).gather(1, kept)

        alive = sums.masked_fill(ends, -torch.inf)
        running = largest(alive, w)
        self.sums, self.tokens = alive.gather(1, running), _rows(tokens, running)
        self.said = chosen.gather(1, running).masked_fill(~self.open[:, None], -1)

        lengths = (n, config.max_new_tokens) if config.early_stopping == "never" else (n,)
        best_sums, worst = self.sums[:, 0] if config.groups == 1 else sums[:, 0], self.scores[:, -1]
        self.open &= (best_sums / max(math.pow(length, config.length_penalty) for length in lengths) > worst) & (not over)
        if config.early_stopping is True:
            self.open &= worst == -torch.inf
        return parents.gather(1, running)


def largest(x: Tensor, k: int) -> Tensor:
    """(B, k) where the k largest of each row of x (B, N) stand, the largest first; of equals the one that stands first.

    `torch.topk` alone leaves open which of equals it takes, and in which order. Here nothing waits for the device.
    """
    least, places = torch.topk(x, k).values[:, -1:], torch.arange(x.shape[-1], device=x.device)
    chosen, equal = x > least, x == least
    chosen |= equal & (equal.cumsum(-1) <= k - chosen.sum(-1, keepdim=True))
    found = torch.topk(places.masked_fill(~chosen, x.shape[-1]), k, largest=False).values
    return found.gather(1, x.gather(1, found).sort(stable=True, descending=True).indices)


def _rows(x: Tensor, of: Tensor) -> Tensor:
    """x (B, N, L), of (B, M) -> (B, M, L)"""
    return x.gather(1, of[:, :, None].expand(-1, -1, x.shape[-1]))
