"""What the causal language models share: from ids to logits and to the loss, with a head of their own or the token table used again."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank
from byhand.noise import Noise, at
from torch_impl.layers.stack import Run, Stack
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.linear import linear


class CausalLM(nn.Module):
    """logits = head(trunk(tokens[ids])); without a head the token table is used again. A subclass says what the trunk is."""

    config: Any
    tokens: nn.Module
    head: nn.Module | None  # no default: a class attribute would hide the child of that name

    def trunk(self, x: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """Embedded tokens x (..., T, D) -> h (..., T, D), what the head reads."""
        raise TypeError(f"{type(self).__name__} defines no trunk")

    def hidden(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """ids (..., T) -> h (..., T, D), what the head reads."""
        at_least_rank(type(self).__name__, 1, ids=ids)
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.trunk(self.tokens(ids, noise=at(noise, "tokens")), noise=noise, run=run)

    def forward(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.logits(self.hidden(ids, noise=noise, run=run), noise=noise)

    def logits(self, h: Tensor, *, noise: Noise | None = None) -> Tensor:
        """h (..., T, D) -> logits (..., T, V)."""
        return linear(h, self.tokens.weight) if self.head is None else self.head(h, noise=at(noise, "head"))

    def loss(self, ids: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.loss_of(self.hidden(ids, noise=noise, run=run), targets, normalizer=normalizer, noise=noise)

    def loss_of(self, h: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None) -> Tensor:
        """h (..., T, D), targets (..., T) -> loss ()."""
        return softmax_cross_entropy(self.logits(h, noise=noise), targets=targets, normalizer=normalizer)

    def _stack(self, block: Callable[[], nn.Module], prepare: Callable[[nn.Module], nn.Module] | None,
               rng: torch.Generator | None) -> Stack:
        """n_layers blocks; with `prepare`, each gets its starting values and is handed over before the next one is made."""
        blocks = []
        for _ in range(self.config.n_layers):
            made = block()
            if prepare is not None:
                self._start(made, rng)
                made = prepare(made)
            blocks.append(made)
        return Stack(blocks)

    def _start(self, module: nn.Module, rng: torch.Generator | None, *, blocks: bool = True) -> None:
        """Fill a module's parameters with the values that a model starts from; those of norms and of positions stay as they are."""
        for name, parameter in module.named_parameters():
            if name.startswith("blocks.") and not blocks:
                continue
            if name.endswith("proj.bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers), generator=rng)
            elif name.endswith(("proj.weight", "tokens.weight", "head.weight")):
                nn.init.normal_(parameter, std=0.02, generator=rng)
