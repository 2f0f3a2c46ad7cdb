"""What the causal language models share: from ids to logits and to the loss, and the values they start from."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank
from byhand.noise import Noise, at
from torch_impl.layers.stack import Run, Stack
from torch_impl.models._head import LanguageModel


class CausalLM(LanguageModel):
    """logits = head(trunk(tokens[ids])). A subclass says what the trunk is."""

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

    def loss(self, ids: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.loss_of(self.hidden(ids, noise=noise, run=run), targets, normalizer=normalizer, noise=noise)

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
