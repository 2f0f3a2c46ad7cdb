"""Prompt tuning (Lester, Al-Rfou & Constant 2021, arXiv:2104.08691): the model stays as it is, and learns what to read before the text."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from byhand.checks import at_least_rank, choice, demand, exact_rank, fail, given, ids_below, integers, same_shape, size
from byhand.noise import Noise, at
from numpy_impl.decode.cache import Cache
from numpy_impl.finetune._projections import OnFrozen
from numpy_impl.layers.stack import Run
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.models._causal import CausalLM
from numpy_impl.models._head import add_grads


class PromptTuned(OnFrozen):
    """logits = head(h_n … h_{n+T−1}),  with  h = trunk(prompt ‖ tokens[ids]):  n learned embeddings that every text begins with.

    Nothing is predicted at the places of the prompt: the logits are those of the T real tokens, and ids and targets are what they are
    without it. The prompt takes the positions 0 … n−1, so that the longest text is shorter by n: `config` says so.

    Parameters
    ----------
    base : GPT2, Llama or Decoder   the model, which is frozen
    n : int                         how many embeddings; 0 leaves the model as it is
    start                           "normal": of deviation 0.02, as the token embeddings of a new model; or n ids, whose embeddings are
                                    copied, which trains faster and better in models that are not huge (section 3.2 of the paper)
    rng                             np.random.Generator of "normal"

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(ids)` is inference. `unfreeze` thaws the
    base only for a pattern that names it, such as "base.norm.*".

    Raises
    ------
    ValueError   if base is no causal language model, n leaves it no position for a text, or start is not n of its ids

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> base = GPT2(GPT2Config(vocabulary=7, max_length=8, d_model=4, n_layers=1, n_heads=2), rng=np.random.default_rng(0))
    >>> model = PromptTuned(base, 2, start=[5, 6])
    >>> logits = model(np.array([[1, 2, 3]]))                # the model reads 5 6 1 2 3
    >>> np.array_equal(logits, base(np.array([[5, 6, 1, 2, 3]]))[:, 2:])
    True
    >>> loss, backward = model.loss(np.array([[1, 2, 3]]), np.array([[2, 3, 4]]))
    >>> backward()["prompt"].shape, list(model.parameters()), model.config.max_length
    ((2, 4), ['prompt'], 6)
    """

    def __init__(self, base: CausalLM, n: int, *, start: str | ArrayLike = "normal", rng: np.random.Generator | None = None):
        who = "PromptTuned"
        if not isinstance(base, CausalLM):
            fail(who, "a causal language model as its base", f"a {type(base).__name__}")
        size(who, at_least=0, n=n)
        demand(who, n < base.config.max_length, "room for a text behind the prompt", n=n, max_length=base.config.max_length)
        if isinstance(start, str):
            choice(who, ("normal",), start=start)
            shape, dtype = (n, base.config.d_model), base.tokens.weight.dtype
            prompt = (0.02 * (rng or np.random.default_rng()).standard_normal(shape)).astype(dtype)
        else:
            ids = np.asarray(start)
            same_shape(who, (n,), start=ids)
            ids_below(who, base.config.vocabulary, start=ids)
            prompt = base.tokens(ids)
        super().__init__(base)
        self.prompt = prompt                                             # (n, D)

    @property
    def config(self) -> Any:
        """The base's, with the length that is left for a text."""
        config = self.base.config
        return dataclasses.replace(config, max_length=config.max_length - len(self.prompt))

    def __call__(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "inference") -> NDArray:
        return self.forward(ids, noise=noise, run=run)[0]

    def forward(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) in [0, V) -> logits (..., T, V); backward: dlogits -> grads (no backward in inference)."""
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        logits, head_backward = self.base.logits(h, noise=noise)

        def backward(dlogits):
            dh, dhead = head_backward(dlogits)
            return _with_head(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def loss(self, ids: NDArray, targets: NDArray, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        ids, targets (..., T) -> loss (); backward: dloss (), 1 by default -> grads (no backward in inference).
        """
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        if run == "inference":
            logits, _ = self.base.logits(h, noise=noise)
            return softmax_cross_entropy(logits, targets=targets, normalizer=normalizer)[0], None
        loss, loss_backward = self.base.loss_of(h, targets, normalizer=normalizer, noise=noise)

        def backward(dloss=1.0):
            dh, dhead = loss_backward(np.asarray(dloss, loss.dtype))
            return _with_head(hidden_backward(dh), dhead)

        return loss, backward

    def new_cache(self, kind: str = "auto", **options: Any) -> Cache:
        """As the base's."""
        return self.base.new_cache(kind, **options)

    def extend(self, ids: NDArray, cache: Cache, *, real: NDArray | None = None, last: bool = True) -> NDArray:
        """As the base's; the prompt is what an empty cache takes in first."""
        return self.extend_hidden(ids, cache, real=real, last=last)[0]

    def extend_hidden(self, ids: NDArray, cache: Cache, *, real: NDArray | None = None, last: bool = True) -> tuple[NDArray, NDArray]:
        """As `extend`, with what the head reads of the new tokens; of the prompt no one sees it."""
        given("PromptTuned.extend", ids=ids)
        integers("PromptTuned.extend", ids=ids)
        exact_rank("PromptTuned.extend", 2, ids=ids)                     # before the prompt is taken in
        if not len(cache.lengths) and len(self.prompt):
            places = cache.place((len(ids), len(self.prompt)))
            prompt = np.broadcast_to(self.prompt, (len(ids), *self.prompt.shape))
            self.base.trunk(prompt, run="inference", caches=cache.layers(places))
            cache.advance(places)
        return self.base.extend_hidden(ids, cache, real=real, last=last)

    def hidden(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        at_least_rank("PromptTuned", 1, ids=ids)
        n = len(self.prompt)
        x, tokens_backward = self.base.tokens.forward(ids, noise=at(noise, "tokens"))              # (..., T, D)
        prompt = np.broadcast_to(self.prompt, (*ids.shape[:-1], *self.prompt.shape))               # (..., n, D)
        h, _, trunk_backward = self.base.trunk(np.concatenate([prompt, x], -2), noise=noise, run=run)

        def backward(dh):
            nothing = np.zeros((*dh.shape[:-2], n, dh.shape[-1]), dh.dtype)                        # no one reads h at the prompt
            dx, grads = trunk_backward(np.concatenate([nothing, dh], -2))
            dprompt = dx[..., :n, :].sum(tuple(range(dx.ndim - 2)))                                # all texts begin with the same
            return {"base": {"tokens": tokens_backward(dx[..., n:, :])} | grads} | self.grads(prompt=dprompt)

        return h[..., n:, :], None if run == "inference" else backward


def _with_head(grads: dict[str, Any], dhead: dict[str, Any]) -> dict[str, Any]:
    """The gradients with the head's, which belongs to the base."""
    return grads | {"base": add_grads(grads["base"], dhead)}
