"""T5 (Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text transformer", arXiv:1910.10683)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank
from byhand.configs.t5 import T5Config
from byhand.noise import Noise, at
from numpy_impl.layers._remembered import bias_by_distance
from numpy_impl.layers.block import Block
from numpy_impl.layers.cross_block import CrossBlock
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.models.transformer import Caches, _EncoderDecoder
from numpy_impl.ops.dropout import dropout
from numpy_impl.positions.t5 import t5_bias


class T5(_EncoderDecoder):
    """logits = h/√D · tokensᵀ,  or  h · headᵀ  in v1.1,  with

    h = dropout(decoder_norm(cross_M(… cross_1(y, context, bias_d)))),  y = dropout(tokens[target]),
    context = dropout(encoder_norm(block_N(… block_1(x, bias_e)))),  x = dropout(tokens[source]).

    Where a token stands is told by the biases alone, which are added to the scores of self-attention: bias_e[h, t, s] =
    encoder_positions[bucket(t − s), h], and bias_d likewise. All blocks of a stack add the same one, so that its gradient is a sum over
    them. Blocks normalise first and have no other biases; scores q · k are not scaled. Every decoder block is causal.

    Parameters
    ----------
    config : T5Config
    dtype                of the parameters
    rng                  np.random.Generator of the initial values

    Tokens start as unit normals, matrices of I columns as normals of deviation 1/√I, and q_proj smaller by √E, which scores need that are
    not scaled; the tables of positions have the deviation 1/√D.

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(source, target)` is inference.

    Examples
    --------
    >>> config = T5Config(vocabulary=7, d_model=8, n_heads=2, encoder_layers=2, decoder_layers=1)
    >>> model = T5(config, rng=np.random.default_rng(0))
    >>> source, labels = np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), np.array([[4, 3, 2], [6, 5, -100]])
    >>> loss, backward = model.loss(source, labels, source_mask=source != 0)
    >>> backward()["encoder_positions"].shape                # a number a bucket and head
    (32, 2)
    >>> model(source, np.array([[0], [0]])).shape            # what comes first
    (2, 1, 7)
    """

    def __init__(self, config: T5Config, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        made: dict[str, Any] = dict(dtype=dtype, rng=rng)
        options: dict[str, Any] = dict(
            d_model=config.d_model, n_heads=config.n_heads, d_hidden=config.d_hidden, norm="rms", activation=config.activation, bias=False,
            eps=config.norm_eps, dropout=config.dropout, attention_dropout=config.dropout, hidden_dropout=config.dropout,
            head_width=config.head_width, scale=1.0, **made,
        )
        table = config.buckets, config.n_heads
        self.tokens = Embedding(config.vocabulary, config.d_model, **made)
        self.encoder_positions = (rng.standard_normal(table) / math.sqrt(config.d_model)).astype(dtype)
        self.encoder = Stack([Block(**options) for _ in range(config.encoder_layers)])
        self.encoder_norm = RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.decoder_positions = (rng.standard_normal(table) / math.sqrt(config.d_model)).astype(dtype)
        self.decoder = Stack([CrossBlock(**options) for _ in range(config.decoder_layers)])
        self.decoder_norm = RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.head = None if config.tied else Linear(config.d_model, config.vocabulary, bias=False, **made)
        for name, array in self.parameters().items():
            if name.endswith(("proj.weight", "head.weight")):
                parts = config.head_width if name.endswith("q_proj.weight") else 1
                array[...] = rng.standard_normal(array.shape) / math.sqrt(parts * array.shape[1])

    def encode(self, source: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
               run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """source (..., S), source_mask (..., S), True = a token -> context (..., S, D); backward: dcontext -> grads (none in inference)."""
        at_least_rank("T5", 1, source=source)
        x, embed_backward = self._embed(source, at(noise, "source"))
        mask = self._for_keys(source_mask, source.shape)
        s = source.shape[-1]
        bias, bias_backward = t5_bias(self.encoder_positions, queries=s, keys=s, max_distance=self.config.max_distance)
        x, encoder_backward = self.encoder.forward(x, bias, mask=mask, noise=at(noise, "encoder"), run=run)
        context, end_backward = self._end(self.encoder_norm, x, at(noise, "encoder_dropout"))

        def backward(dcontext):
            dx, dnorm = end_backward(dcontext)
            dx, dbias, dencoder = encoder_backward(dx)
            grads = {"tokens": embed_backward(dx), "encoder": dencoder, "encoder_norm": dnorm}
            return grads | self.grads(encoder_positions=bias_backward(dbias))

        return context, None if run == "inference" else backward

    def decode(self, target: NDArray, context: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
               run: Run = "keep", caches: Caches | None = None) -> tuple[NDArray, Callable | None]:
        """target (..., T), context (..., S, D) -> h (..., T, D), divided by √D if the head is tied; backward: dh -> dcontext, grads.

        There is no backward in inference. With caches, one a layer, target (B, T) follows what those hold.
        """
        at_least_rank("T5", 1, target=target)
        x, embed_backward = self._embed(target, at(noise, "target"))
        mask = self._for_keys(source_mask, context.shape[:-1])
        scale = 1 / math.sqrt(self.config.d_model) if self.config.tied else 1.0
        t, places = target.shape[-1], None if caches is None else caches[0][0].places
        s = t if places is None else places.longest
        alike = places is None or places.start is not None
        bias, bias_backward = t5_bias(
            self.decoder_positions, queries=t if alike else 1, keys=s, bidirectional=False, max_distance=self.config.max_distance
        )
        if not alike:                                                   # the first key of every row stands at position 0
            bias = bias_by_distance(bias, places.positions[:, :, None] - np.arange(s))
        x, decoder_backward = self.decoder.forward(
            x, context, bias, context_mask=mask, causal=True, noise=at(noise, "decoder"), run=run, caches=caches
        )
        h, end_backward = self._end(self.decoder_norm, x, at(noise, "decoder_dropout"))

        def backward(dh):
            dx, dnorm = end_backward(scale * dh)
            dx, dcontext, dbias, ddecoder = decoder_backward(dx)
            grads = {"tokens": embed_backward(dx), "decoder": ddecoder, "decoder_norm": dnorm}
            return dcontext, grads | self.grads(decoder_positions=bias_backward(dbias))

        return scale * h, None if run == "inference" else backward

    def _embed(self, ids: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """ids (..., T) -> x (..., T, D); backward: dx -> the table's gradients."""
        x, tokens_backward = self.tokens.forward(ids, noise=at(noise, "tokens"))
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=noise)
        return x, lambda dx: tokens_backward(dropout_backward(dx))

    def _end(self, norm: RMSNorm, x: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """dropout(norm(x)), what a stack ends in; backward: dy -> dx, the norm's gradients."""
        y, norm_backward = norm.forward(x)
        y, dropout_backward = dropout(y, p=self.config.dropout, noise=noise)
        return y, lambda dy: norm_backward(dropout_backward(dy))
