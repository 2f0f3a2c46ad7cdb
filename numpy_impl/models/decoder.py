"""A causal language model whose architecture is a choice: what the architecture experiments train."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank
from byhand.configs.decoder import DecoderConfig
from byhand.noise import Noise, at
from numpy_impl.layers.decoder_block import DecoderBlock
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import LayerNorm, RMSNorm
from numpy_impl.layers.positions import LearnedPositions, SinusoidalPositions
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.linear_cross_entropy import linear_cross_entropy
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.linear import linear


class Decoder(Module):
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

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, dtype=dtype, rng=rng)
        self.positions: Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config.max_length, config.d_model, dtype=dtype, rng=rng)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.d_model, dtype=dtype)
        self.blocks = Stack([
            DecoderBlock(
                config.d_model, config.n_heads, config.d_hidden, norm=config.norm, norm_type=config.norm_type,
                activation=config.activation, bias=config.bias, eps=config.norm_eps, dropout=config.dropout, attention=config.attention,
                positions=config.positions, window=config.window, stride=config.stride, local=config.local, rope_base=config.rope_base,
                buckets=config.buckets, max_distance=config.max_distance, dtype=dtype, rng=rng,
            )
            for _ in range(config.n_layers)
        ])
        self.norm: Module | None = None
        if config.norm == "pre":
            self.norm = (LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias, dtype=dtype) if config.norm_type == "layer"
                         else RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype))
        for name, array in self.parameters().items():
            if name.endswith("proj.bias"):
                array[...] = 0
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                array[...] = 0.02 / math.sqrt(2 * config.n_layers) * rng.standard_normal(array.shape)
            elif name.endswith(("proj.weight", "tokens.weight")):
                array[...] = 0.02 * rng.standard_normal(array.shape)

    def __call__(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "inference") -> NDArray:
        return self.forward(ids, noise=noise, run=run)[0]

    def forward(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) in [0, V) -> logits (..., T, V); backward: dlogits -> grads (no backward in inference)."""
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        logits, head_backward = linear(h, self.tokens.weight)

        def backward(dlogits):
            dh, dhead, _ = head_backward(dlogits)
            return _tied(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def loss(self, ids: NDArray, targets: NDArray, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        ids, targets (..., T) -> loss (); backward: dloss (), 1 by default -> grads (no backward in inference).
        """
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        if run == "inference":
            return softmax_cross_entropy(linear(h, self.tokens.weight)[0], targets=targets, normalizer=normalizer)[0], None
        loss, head_backward = linear_cross_entropy(h, self.tokens.weight, targets=targets, normalizer=normalizer)

        def backward(dloss=1.0):
            dh, dhead = head_backward(np.asarray(dloss, loss.dtype))
            return _tied(hidden_backward(dh), dhead)

        return loss, backward

    def hidden(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        at_least_rank("Decoder", 1, ids=ids)
        c = math.sqrt(self.config.d_model) if self.config.positions == "sinusoidal" else 1.0
        x, tokens_backward = self.tokens.forward(ids)                   # (..., T, D)
        x, positions_backward = _maybe(self.positions)(c * x)
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        x, blocks_backward = self.blocks.forward(x, noise=at(noise, "blocks"), run=run)
        h, norm_backward = _maybe(self.norm)(x)

        def backward(dh):
            dx, dnorm = norm_backward(dh)
            dx, dblocks = blocks_backward(dx)
            dx, dpositions = positions_backward(dropout_backward(dx))
            return {"tokens": tokens_backward(c * dx), "positions": dpositions, "blocks": dblocks, "norm": dnorm}

        return h, None if run == "inference" else backward


def _maybe(layer: Module | None) -> Callable:
    """The layer's forward, or x -> x."""
    return (lambda x: (x, lambda dy: (dy, {}))) if layer is None else layer.forward


def _tied(grads: dict[str, Any], dhead: NDArray) -> dict[str, Any]:
    """The gradients with the head's part added to the token table's (unless that is frozen)."""
    return grads | {"tokens": {name: dtable + dhead for name, dtable in grads["tokens"].items()}}
