"""What the causal language models share: from ids to logits and to the loss, and the values they start from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, demand, same_shape
from byhand.configs.routing import RoutingLoss
from byhand.noise import Noise, at
from numpy_impl.decode.cache import Cache, LayerCache, Places
from numpy_impl.decode.kinds import make_stores
from numpy_impl.layers._fill import fill_normal
from numpy_impl.layers._routed import Routes
from numpy_impl.layers.module import Module
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.models._head import LanguageModel, add_grads
from numpy_impl.models._routing_loss import routing_loss


class CausalLM(LanguageModel):
    """logits = head(trunk(tokens[ids])),  where a subclass says what the trunk is.

    routing_loss   what the training loss adds where layers route tokens to experts; None: nothing
    watch          called with what the routers did in every forward pass of training; None: no one looks
    """

    routing_loss: RoutingLoss | None = None
    watch: Callable[[Routes], None] | None = None

    def __call__(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "inference") -> NDArray:
        return self.forward(ids, noise=noise, run=run)[0]

    def trunk(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[NDArray, Routes, Callable | None]:
        """Embedded tokens x (..., T, D) -> h (..., T, D), what the head reads, and what the routers did with the tokens, of which `real`
        (..., T) are no padding; backward: dh, dlogits of the routers -> dx, grads (no backward in inference). With caches, one a layer,
        x (B, T, D) follow what those hold."""
        raise TypeError(f"{type(self).__name__} defines no trunk")

    def hidden(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        h, _, backward = self._routed(ids, None, noise, run)
        return h, backward

    def _routed(self, ids: NDArray, real: NDArray | None, noise: Noise | None, run: Run) -> tuple[NDArray, Routes, Callable | None]:
        """As `hidden`, and what the routers did; backward: dh, their dlogits -> grads."""
        at_least_rank(type(self).__name__, 1, ids=ids)
        booleans(type(self).__name__, real=real)
        same_shape(type(self).__name__, ids.shape, real=real)
        x, tokens_backward = self.tokens.forward(ids, noise=at(noise, "tokens"))        # (..., T, D)
        h, routes, trunk_backward = self.trunk(x, real=real, noise=noise, run=run)

        def backward(dh, dlogits=()):
            dx, grads = trunk_backward(dh, dlogits)
            return {"tokens": tokens_backward(dx)} | grads

        return h, routes, None if run == "inference" else backward

    def forward(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) in [0, V) -> logits (..., T, V); backward: dlogits -> grads (no backward in inference)."""
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        logits, head_backward = self.logits(h, noise=noise)

        def backward(dlogits):
            dh, dhead = head_backward(dlogits)
            return add_grads(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def loss(self, ids: NDArray, targets: NDArray, *, normalizer: float | None = None, real: NDArray | None = None,
             noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        ids, targets (..., T) -> loss (); backward: dloss (), 1 by default -> grads (no backward in inference). In training the
        `routing_loss` is added; `real` (..., T) says which tokens count in it, by default all: those that are no padding.
        """
        h, routes, hidden_backward = self._routed(ids, real, noise, run)
        if run == "inference":
            logits, _ = self.logits(h, noise=noise)
            return softmax_cross_entropy(logits, targets=targets, normalizer=normalizer)[0], None
        loss, loss_backward = self.loss_of(h, targets, normalizer=normalizer, noise=noise)
        if self.watch is not None:
            self.watch(routes)
        # An update sums its micro-batches' losses, each divided by the tokens of all: what is added is weighed by this one's share of them.
        extra_backward = None
        if routes and self.routing_loss is not None:
            extra, extra_backward = routing_loss(routes, self.routing_loss, real=real)
            share = 1.0 if normalizer is None else int((targets != -100).sum()) / normalizer
            loss = np.asarray(loss + share * extra, loss.dtype)

        def backward(dloss=1.0):
            dloss = np.asarray(dloss, loss.dtype)
            dh, dhead = loss_backward(dloss)
            dlogits = () if extra_backward is None else extra_backward(dloss * share)
            return add_grads(hidden_backward(dh, dlogits), dhead)

        return loss, backward

    @property
    def windows(self) -> list[int | None]:
        """How many tokens a token sees in each layer, its own among them; None: all before it."""
        return [getattr(self.config, "window", None)] * self.config.n_layers

    def new_cache(self, kind: str = "auto", **options: Any) -> Cache:
        """An empty cache for `extend`, of a kind of `decode.kinds`."""
        return Cache(make_stores(self.windows, kind=kind, **options))

    def _extended(self, ids: NDArray, cache: Cache, places: Places) -> NDArray:
        self._fits(places)
        return self.trunk(self.tokens(ids), real=places.real, run="inference", caches=cache.layers(places))[0]

    def _fits(self, places: Places) -> None:
        """Fail where a row would be longer than the longest text of the model."""
        longest, most = places.longest, self.config.max_length
        demand(f"{type(self).__name__}.extend", longest <= most, f"at most {most} tokens in a row", tokens=longest)

    def _stack(self, block: Callable[[int], Module], prepare: Callable[[Module], Module] | None, rng: np.random.Generator) -> Stack:
        """block(0) … block(n_layers − 1); with `prepare`, each gets its starting values and is handed over before the next one is made."""
        blocks = []
        for i in range(self.config.n_layers):
            made = block(i)
            if prepare is not None:
                self._start(made, rng)
                made = prepare(made)
            blocks.append(made)
        return Stack(blocks)

    def _start(self, module: Module, rng: np.random.Generator, *, blocks: bool = True) -> None:
        """Fill a module's arrays with the values that a model starts from; those of norms and of tables of positions stay as they are."""
        for name, array in module.parameters().items():
            if name.startswith("blocks.") and not blocks:
                continue
            if name.endswith("proj.bias"):
                array[...] = 0
            elif name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                fill_normal(array, rng, 0.02 / math.sqrt(2 * self.config.n_layers))
            elif name.endswith(("proj.weight", "experts.gate_proj", "experts.up_proj", "router.weight", "shared_gate.weight",
                                "tokens.weight", "head.weight")):
                fill_normal(array, rng, 0.02)
