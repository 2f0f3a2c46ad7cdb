"""Prompt tuning (Lester, Al-Rfou & Constant 2021, arXiv:2104.08691): the model stays as it is, and learns what to read before the text."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, choice, demand, exact_rank, fail, given, ids_below, integers, same_shape, size
from byhand.noise import Noise, at
from torch_impl.decode.cache import Cache
from torch_impl.layers.stack import Run
from torch_impl.models._causal import CausalLM


class PromptTuned(nn.Module):
    """logits = head(h_n … h_{n+T−1}),  with  h = trunk(prompt ‖ tokens[ids]):  n learned embeddings that every text begins with.

    base : GPT2, Llama or Decoder, which is frozen. start : "normal", or n ids whose embeddings are copied. ids (..., T) -> logits
    (..., T, V) of the real tokens alone. The longest text is shorter by n: `config` says so.
    """

    base: Any

    def __init__(self, base: CausalLM, n: int, *, start: Any = "normal", rng: torch.Generator | None = None):
        super().__init__()
        who = "PromptTuned"
        if not isinstance(base, CausalLM):
            fail(who, "a causal language model as its base", f"a {type(base).__name__}")
        size(who, at_least=0, n=n)
        demand(who, n < base.config.max_length, "room for a text behind the prompt", n=n, max_length=base.config.max_length)
        weight: Any = base.tokens.weight
        if isinstance(start, str):
            choice(who, ("normal",), start=start)
            prompt = torch.empty(n, base.config.d_model, dtype=weight.dtype, device=weight.device).normal_(std=0.02, generator=rng)
        else:
            ids = torch.as_tensor(start, device=weight.device)
            same_shape(who, (n,), start=ids)
            ids_below(who, base.config.vocabulary, start=ids)
            with torch.no_grad():
                prompt = base.tokens(ids)
        self.base = base.requires_grad_(False)
        self.prompt = nn.Parameter(prompt)  # (n, D)

    @property
    def config(self) -> Any:
        """The base's, with the length that is left for a text."""
        config = self.base.config
        return dataclasses.replace(config, max_length=config.max_length - len(self.prompt))

    def forward(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.base.logits(self.hidden(ids, noise=noise, run=run), noise=noise)

    def loss(self, ids: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.base.loss_of(self.hidden(ids, noise=noise, run=run), targets, normalizer=normalizer, noise=noise)

    def new_cache(self, kind: str = "auto", **options: Any) -> Cache:
        """As the base's."""
        return self.base.new_cache(kind, **options)

    @torch.no_grad()
    def extend(self, ids: Tensor, cache: Cache, *, real: Tensor | None = None, last: bool = True) -> Tensor:
        """As the base's; the prompt is what an empty cache takes in first."""
        return self.extend_hidden(ids, cache, real=real, last=last)[0]

    @torch.no_grad()
    def extend_hidden(self, ids: Tensor, cache: Cache, *, real: Tensor | None = None, last: bool = True) -> tuple[Tensor, Tensor]:
        """As `extend`, with what the head reads of the new tokens; of the prompt no one sees it."""
        given("PromptTuned.extend", ids=ids)
        integers("PromptTuned.extend", ids=ids)
        exact_rank("PromptTuned.extend", 2, ids=ids)  # before the prompt is taken in
        if not len(cache.lengths) and len(self.prompt):
            places = cache.place((len(ids), len(self.prompt)), device=ids.device)
            prompt = self.prompt.expand(len(ids), *self.prompt.shape)
            self.base.trunk(prompt, run="inference", caches=cache.layers(places))
            cache.advance(places)
        return self.base.extend_hidden(ids, cache, real=real, last=last)

    def hidden(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """ids (..., T) -> h (..., T, D), what the head reads."""
        at_least_rank("PromptTuned", 1, ids=ids)
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            x = self.base.tokens(ids, noise=at(noise, "tokens"))
            prompt = self.prompt.expand(*ids.shape[:-1], *self.prompt.shape)
            h, _ = self.base.trunk(torch.cat([prompt, x], -2), noise=noise, run=run)
            return h[..., len(self.prompt) :, :]
