"""A causal language model whose architecture is a choice: what the architecture experiments train."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.configs.decoder import DecoderConfig
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._routed import Routes
from numpy_impl.layers.decoder_block import DecoderBlock
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import LayerNorm, RMSNorm
from numpy_impl.layers.positions import LearnedPositions, SinusoidalPositions
from numpy_impl.layers.stack import Run
from numpy_impl.models._causal import CausalLM
from numpy_impl.ops.dropout import dropout


class Decoder(CausalLM):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(c · tokens[ids] + positions)))),  every block causal.

    positions are a learned table, sinusoids, or nothing: the others act inside each block's attention. c is 1, and √D beside sinusoids,
    whose size is near 1 while that of a token's numbers is 0.02 (Vaswani et al. 2017, section 3.4). The norm at the end is there where
    blocks normalise what they read ("pre"); a "post" block ends with a norm of its own, and "none" has none at all.

    The table of token embeddings is used twice, to read tokens and to predict them, so its gradient is a sum of two.

    Parameters
    ----------
    config : DecoderConfig
    dtype                   of the parameters
    rng                     np.random.Generator of the initial values
    prepare                 block -> block, called with each block as soon as it is made: a quantizer, say, so that the whole model never
                            stands in full precision; None: nothing

    Weights start as normals of deviation 0.02, biases and the table of relative positions at 0; o_proj and down_proj, whose outputs add up
    over 2 · n_layers residual branches, are smaller by √(2 · n_layers).

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(ids)` is inference.

    Examples
    --------
    >>> config = DecoderConfig(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2, positions="rotary", activation="swiglu")
    >>> model = Decoder(config, rng=np.random.default_rng(0))
    >>> ids = np.array([[1, 2, 3]])
    >>> logits, backward = model.forward(ids)
    >>> grads = backward(np.ones_like(logits))               # ids are no floats: the gradients alone come back
    >>> logits.shape, list(grads), grads["positions"]        # rotary positions learn nothing
    ((1, 3, 7), ['tokens', 'positions', 'blocks', 'norm'], {})
    >>> loss, backward = model.loss(ids, np.array([[2, 3, 4]]))
    >>> abs(float(loss) - math.log(7)) < 0.1                 # it starts knowing nothing
    True
    """

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
                 prepare: Callable[[Module], Module] | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, dtype=dtype, rng=rng)
        self.positions: Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config.max_length, config.d_model, dtype=dtype, rng=rng)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.d_model, dtype=dtype)

        def block(i: int) -> Module:
            return DecoderBlock(
                config.d_model, config.n_heads, config.d_hidden, norm=config.norm, norm_type=config.norm_type,
                activation=config.activation, bias=config.bias, eps=config.norm_eps, dropout=config.dropout, attention=config.attention,
                positions=config.positions, window=config.window, stride=config.stride, local=config.local, rope_base=config.rope_base,
                buckets=config.buckets, max_distance=config.max_distance, dtype=dtype, rng=rng,
            )

        self.blocks = self._stack(block, prepare, rng)
        self.norm: Module | None = None
        if config.norm == "pre":
            self.norm = (LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias, dtype=dtype) if config.norm_type == "layer"
                         else RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype))
        self.head = None
        self._start(self, rng, blocks=prepare is None)

    def trunk(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[NDArray, Routes, Callable | None]:
        c = math.sqrt(self.config.d_model) if self.config.positions == "sinusoidal" else 1.0
        x, positions_backward = _maybe(self.positions)(c * x, **({"positions": caches[0].places.positions} if caches else {}))
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        x, routes, blocks_backward = self.blocks.routed(x, real=real, noise=at(noise, "blocks"), run=run, caches=caches)
        h, norm_backward = _maybe(self.norm)(x)

        def backward(dh, dlogits=()):
            dx, dnorm = norm_backward(dh)
            dx, dblocks = blocks_backward(dx, dlogits)
            dx, dpositions = positions_backward(dropout_backward(dx))
            return c * dx, {"positions": dpositions, "blocks": dblocks, "norm": dnorm}

        return h, routes, None if run == "inference" else backward


def _maybe(layer: Module | None) -> Callable:
    """The layer's forward, or x -> x."""
    return (lambda x, **options: (x, lambda dy: (dy, {}))) if layer is None else layer.forward
