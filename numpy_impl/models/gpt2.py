"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners")."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.configs.gpt2 import GPT2Config
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._routed import Routes
from numpy_impl.layers.block import Block
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import LayerNorm
from numpy_impl.layers.positions import LearnedPositions
from numpy_impl.layers.stack import Run
from numpy_impl.models._causal import CausalLM
from numpy_impl.ops.dropout import dropout


class GPT2(CausalLM):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(tokens[ids] + positions)))),  every block causal.

    The table of token embeddings is used twice, to read tokens and to predict them, so its gradient is a sum of two.

    Parameters
    ----------
    config : GPT2Config
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values
    prepare               block -> block, called with each block as soon as it is made: a quantizer, say, so that the whole model never
                          stands in full precision; None: nothing

    Weights start as normals of deviation 0.02, biases at 0; o_proj and down_proj, whose outputs add up over 2 · n_layers residual
    branches, are smaller by √(2 · n_layers).

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(ids)` is inference.

    Examples
    --------
    >>> model = GPT2(GPT2Config(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2), rng=np.random.default_rng(0))
    >>> ids = np.array([[1, 2, 3]])
    >>> logits, backward = model.forward(ids)
    >>> grads = backward(np.ones_like(logits))               # ids are no floats: the gradients alone come back
    >>> logits.shape, grads["tokens"]["weight"].shape
    ((1, 3, 7), (7, 4))
    >>> loss, backward = model.loss(ids, np.array([[2, 3, 4]]))
    >>> abs(float(loss) - float(np.log(7))) < 0.1                 # it starts knowing nothing
    True
    """

    def __init__(self, config: GPT2Config, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
                 prepare: Callable[[Module], Module] | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, dtype=dtype, rng=rng)
        self.positions = LearnedPositions(config.max_length, config.d_model, dtype=dtype, rng=rng)

        def block(i: int) -> Module:
            return Block(config.d_model, config.n_heads, config.d_hidden, activation=config.activation, eps=config.norm_eps,
                         dropout=config.dropout, attention_dropout=config.dropout, dtype=dtype, rng=rng)

        self.blocks = self._stack(block, prepare, rng)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.head = None
        self._start(self, rng, blocks=prepare is None)

    def trunk(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[NDArray, Routes, Callable | None]:
        x, positions_backward = self.positions.forward(x, positions=caches[0].places.positions if caches else None)
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        x, routes, blocks_backward = self.blocks.routed(x, real=real, causal=True, noise=at(noise, "blocks"), run=run, caches=caches)
        h, norm_backward = self.norm.forward(x)

        def backward(dh, dlogits=()):
            dx, dnorm = norm_backward(dh)
            dx, dblocks = blocks_backward(dx, dlogits)
            dx, dpositions = positions_backward(dropout_backward(dx))
            return dx, {"positions": dpositions, "blocks": dblocks, "norm": dnorm}

        return h, routes, None if run == "inference" else backward
