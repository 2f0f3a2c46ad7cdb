"""What the causal language models share: from ids to logits and to the loss, and the values they start from."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank
from byhand.noise import Noise, at
from numpy_impl.layers._fill import fill_normal
from numpy_impl.layers.module import Module
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.models._head import LanguageModel, add_grads


class CausalLM(LanguageModel):
    """logits = head(trunk(tokens[ids])),  where a subclass says what the trunk is."""

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
            return add_grads(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

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
            return add_grads(hidden_backward(dh), dhead)

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
