"""What the causal language models share: from ids to logits and to the loss, and the values they start from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, booleans, demand, same_shape
from byhand.configs.routing import RoutingLoss
from byhand.noise import Noise, at
from torch_impl.decode.cache import Cache, LayerCache, Places
from torch_impl.decode.kinds import make_stores
from torch_impl.layers._routed import Routes
from torch_impl.layers.stack import Run, Stack
from torch_impl.models._head import LanguageModel
from torch_impl.models._routing_loss import routing_loss


class CausalLM(LanguageModel):
    """logits = head(trunk(tokens[ids])). A subclass says what the trunk is.

    routing_loss   what the training loss adds where layers route tokens to experts; None: nothing
    watch          called with what the routers did in every forward pass of training; None: no one looks
    """

    routing_loss: RoutingLoss | None = None
    watch: Callable[[Routes], None] | None = None

    def trunk(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[Tensor, Routes]:
        """Embedded tokens x (..., T, D) -> h (..., T, D), what the head reads, and what the routers did with the tokens, of which `real`
        (..., T) are no padding. With caches, one a layer, x (B, T, D) follow what those hold."""
        raise TypeError(f"{type(self).__name__} defines no trunk")

    def hidden(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """ids (..., T) -> h (..., T, D), what the head reads."""
        return self._routed(ids, None, noise, run)[0]

    def _routed(self, ids: Tensor, real: Tensor | None, noise: Noise | None, run: Run) -> tuple[Tensor, Routes]:
        """As `hidden`, and what the routers did."""
        at_least_rank(type(self).__name__, 1, ids=ids)
        booleans(type(self).__name__, real=real)
        same_shape(type(self).__name__, ids.shape, real=real)
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.trunk(self.tokens(ids, noise=at(noise, "tokens")), real=real, noise=noise, run=run)

    def forward(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return self.logits(self.hidden(ids, noise=noise, run=run), noise=noise)

    def loss(self, ids: Tensor, targets: Tensor, *, normalizer: float | None = None, real: Tensor | None = None,
             noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean. In training the
        `routing_loss` is added; `real` (..., T) says which tokens count in it, by default all: those that are no padding."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            h, routes = self._routed(ids, real, noise, run)
            loss = self.loss_of(h, targets, normalizer=normalizer, noise=noise)
            if run == "inference":
                return loss
            if self.watch is not None:
                self.watch(routes)
            if routes and self.routing_loss is not None:
                # An update sums its micro-batches' losses, each divided by the tokens of all: what is added is weighed by this one's share.
                share = 1.0 if normalizer is None else int((targets != -100).sum()) / normalizer
                loss = loss + share * routing_loss(routes, self.routing_loss, real=real)
            return loss

    @property
    def windows(self) -> list[int | None]:
        """How many tokens a token sees in each layer, its own among them; None: all before it."""
        return [getattr(self.config, "window", None)] * self.config.n_layers

    def new_cache(self, kind: str = "auto", **options: Any) -> Cache:
        """An empty cache for `extend`, of a kind of `decode.kinds`."""
        return Cache(make_stores(self.windows, kind=kind, **options))

    def _extended(self, ids: Tensor, cache: Cache, places: Places) -> Tensor:
        self._fits(places)
        return self.trunk(self.tokens(ids), real=places.real, run="inference", caches=cache.layers(places))[0]

    def _fits(self, places: Places) -> None:
        """Fail where a row would be longer than the longest text of the model."""
        longest, most = places.longest, self.config.max_length
        demand(f"{type(self).__name__}.extend", longest <= most, f"at most {most} tokens in a row", tokens=longest)

    def _stack(self, block: Callable[[int], nn.Module], prepare: Callable[[nn.Module], nn.Module] | None,
               rng: torch.Generator | None) -> Stack:
        """block(0) … block(n_layers − 1); with `prepare`, each gets its starting values and is handed over before the next one is made."""
        blocks = []
        for i in range(self.config.n_layers):
            made = block(i)
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
            elif name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers), generator=rng)
            elif name.endswith(("proj.weight", "experts.gate_proj", "experts.up_proj", "router.weight", "shared_gate.weight",
                                "tokens.weight", "head.weight")):
                nn.init.normal_(parameter, std=0.02, generator=rng)
