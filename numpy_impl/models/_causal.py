"""What the causal language models share: from ids to logits and to the loss, with a head of their own or the token table used again."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank
from byhand.noise import Noise, at
from numpy_impl.layers._fill import fill_normal
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.linear_cross_entropy import frozen_linear_cross_entropy, linear_cross_entropy
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.ops.linear import frozen_linear, linear


class CausalLM(Module):
    """logits = head(trunk(tokens[ids])),  where a subclass says what the trunk is.

    Without a head of its own (``head`` is None) the table of token embeddings is used twice, to read tokens and to predict them, and its
    gradient is a sum of two.
    """

    config: Any
    tokens: Any             # an Embedding, or what stands in its place
    head: Any               # a Linear, what stands in its place, or None

    def __call__(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "inference") -> NDArray:
        return self.forward(ids, noise=noise, run=run)[0]

    def trunk(self, x: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """Embedded tokens x (..., T, D) -> h (..., T, D), what the head reads; backward: dh -> dx, grads (no backward in inference)."""
        raise TypeError(f"{type(self).__name__} defines no trunk")

    def hidden(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        at_least_rank(type(self).__name__, 1, ids=ids)
        x, tokens_backward = self.tokens.forward(ids, noise=at(noise, "tokens"))        # (..., T, D)
        h, trunk_backward = self.trunk(x, noise=noise, run=run)

        def backward(dh):
            dx, grads = trunk_backward(dh)
            return {"tokens": tokens_backward(dx)} | grads

        return h, None if run == "inference" else backward

    def forward(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) in [0, V) -> logits (..., T, V); backward: dlogits -> grads (no backward in inference)."""
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        logits, head_backward = self.logits(h, noise=noise)

        def backward(dlogits):
            dh, dhead = head_backward(dlogits)
            return _joined(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def logits(self, h: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """h (..., T, D) -> logits (..., T, V); backward: dlogits -> dh, grads of the head."""
        if self.head is not None:
            logits, own_backward = self.head.forward(h, noise=at(noise, "head"))

            def backward(dlogits):
                dh, dhead = own_backward(dlogits)
                return dh, {"head": dhead}

        elif self.tokens.trains("weight"):
            logits, table_backward = linear(h, self.tokens.weight)

            def backward(dlogits):
                dh, dtable, _ = table_backward(dlogits)
                return dh, {"tokens": {"weight": dtable}}

        else:
            logits, frozen_backward = frozen_linear(h, weight=self.tokens.weight)

            def backward(dlogits):
                return frozen_backward(dlogits)[0], {}

        return logits, backward

    def loss(self, ids: NDArray, targets: NDArray, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        ids, targets (..., T) -> loss (); backward: dloss (), 1 by default -> grads (no backward in inference).
        """
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        if run == "inference":
            logits, _ = self.logits(h, noise=noise)
            return softmax_cross_entropy(logits, targets=targets, normalizer=normalizer)[0], None
        loss, loss_backward = self.loss_of(h, targets, normalizer=normalizer, noise=noise)

        def backward(dloss=1.0):
            dh, dhead = loss_backward(np.asarray(dloss, loss.dtype))
            return _joined(hidden_backward(dh), dhead)

        return loss, backward

    def loss_of(self, h: NDArray, targets: NDArray, *, normalizer: float | None = None,
                noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """h (..., T, D), targets (..., T) -> loss (); backward: dloss () -> dh, grads of the head.

        Where the head is a matrix and nothing else, the logits of all tokens never exist together.
        """
        name, table = ("tokens", self.tokens) if self.head is None else ("head", self.head)
        plain = type(table) in (Embedding, Linear) and getattr(table, "bias", None) is None
        options = dict(targets=targets, normalizer=normalizer)
        if plain and table.trains("weight"):
            loss, fused_backward = linear_cross_entropy(h, table.weight, **options)

            def backward(dloss):
                dh, dweight = fused_backward(dloss)
                return dh, {name: {"weight": dweight}}

        elif plain:
            loss, frozen_backward = frozen_linear_cross_entropy(h, weight=table.weight, **options)

            def backward(dloss):
                return frozen_backward(dloss), {}

        else:
            logits, logits_backward = self.logits(h, noise=noise)
            loss, own_backward = softmax_cross_entropy(logits, **options)

            def backward(dloss):
                return logits_backward(own_backward(dloss))

        return loss, backward

    def _stack(self, block: Callable[[], Module], prepare: Callable[[Module], Module] | None, rng: np.random.Generator) -> Stack:
        """n_layers blocks; with `prepare`, each gets its starting values and is handed over before the next one is made."""
        blocks = []
        for _ in range(self.config.n_layers):
            made = block()
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
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                fill_normal(array, rng, 0.02 / math.sqrt(2 * self.config.n_layers))
            elif name.endswith(("proj.weight", "tokens.weight", "head.weight")):
                fill_normal(array, rng, 0.02)


def _joined(grads: dict[str, Any], dhead: dict[str, Any]) -> dict[str, Any]:
    """The gradients with the head's; where the head is the token table, its gradient is a sum of two."""
    if "tokens" in dhead:
        return grads | {"tokens": {"weight": grads["tokens"]["weight"] + dhead["tokens"]["weight"]}}
    return grads | dhead
