"""The encoder–decoder Transformer (Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import booleans, exact_rank, same_shape
from byhand.configs.transformer import TransformerConfig
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache, Places
from numpy_impl.decode.context import ContextCache, ContextStore
from numpy_impl.decode.kinds import make_stores
from numpy_impl.layers.block import Block, _normalise, _present
from numpy_impl.layers.cross_block import CrossBlock
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.norm import LayerNorm
from numpy_impl.layers.positions import SinusoidalPositions
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.models._head import LanguageModel, add_grads
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.shift_right import shift_right

Caches = Sequence[tuple[LayerCache, ContextStore]]


class _EncoderDecoder(LanguageModel):
    """What Transformer and T5 share: logits = head(decode(target, encode(source))), and the loss of predicting labels one by one."""

    kind_of_cache = ContextCache
    encode: Callable        # source -> context; dcontext -> grads
    decode: Callable        # target, context -> h; dh -> dcontext, grads
    decoder: Stack

    def __call__(self, source: NDArray, target: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
                 run: Run = "inference") -> NDArray:
        return self.forward(source, target, source_mask=source_mask, noise=noise, run=run)[0]

    def forward(self, source: NDArray, target: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
                run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """source (..., S), target (..., T), source_mask (..., S), True = a token -> logits (..., T, V); backward: dlogits -> grads.

        The logits at t are those of the token after target[..., :t + 1]. There is no backward in inference.
        """
        h, hidden_backward = self.hidden(source, target, source_mask=source_mask, noise=noise, run=run)
        logits, head_backward = self.logits(h, noise=noise)

        def backward(dlogits):
            dh, dhead = head_backward(dlogits)
            return add_grads(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def loss(self, source: NDArray, labels: NDArray, *, source_mask: NDArray | None = None, normalizer: float | None = None,
             noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[label] / normalizer, over the labels that are not -100; by default their mean.

        The decoder reads the labels shifted by one place, behind the config's start. source (..., S), labels (..., T) -> loss ();
        backward: dloss (), 1 by default -> grads (no backward in inference).
        """
        target = shift_right(labels, start=self.config.start, padding=self.config.padding)
        h, hidden_backward = self.hidden(source, target, source_mask=source_mask, noise=noise, run=run)
        if run == "inference":
            logits, _ = self.logits(h, noise=noise)
            return softmax_cross_entropy(logits, targets=labels, normalizer=normalizer)[0], None
        loss, loss_backward = self.loss_of(h, labels, normalizer=normalizer, noise=noise)

        def backward(dloss=1.0):
            dh, dhead = loss_backward(np.asarray(dloss, loss.dtype))
            return add_grads(hidden_backward(dh), dhead)

        return loss, backward

    def hidden(self, source: NDArray, target: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
               run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """source, target -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        context, encode_backward = self.encode(source, source_mask=source_mask, noise=noise, run=run)
        h, decode_backward = self.decode(target, context, source_mask=source_mask, noise=noise, run=run)

        def backward(dh):
            dcontext, decoder_grads = decode_backward(dh)
            return add_grads(encode_backward(dcontext), decoder_grads)

        return h, None if run == "inference" else backward

    def new_cache(self, source: NDArray, *, source_mask: NDArray | None = None, kind: str = "auto", **options: Any) -> ContextCache:
        """A cache for `extend` that knows the source (B, S) and no target yet; its stores are of a kind of `decode.kinds`."""
        exact_rank(type(self).__name__, 2, source=source)
        context, _ = self.encode(source, source_mask=source_mask, run="inference")
        return ContextCache(make_stores([None] * len(self.decoder.layers), kind=kind, **options), context, source_mask)

    def _extended(self, ids: NDArray, cache: ContextCache, places: Places) -> NDArray:
        return self.decode(ids, cache.context, source_mask=cache.mask, run="inference", caches=cache.both(places))[0]

    def _for_keys(self, source_mask: NDArray | None, shape: tuple[int, ...]) -> NDArray | None:
        """(..., S), True where there is a token, as (..., 1, 1, S): the same keys for all heads and queries."""
        booleans(type(self).__name__, source_mask=source_mask)
        same_shape(type(self).__name__, shape, source_mask=source_mask)
        return None if source_mask is None else source_mask[..., None, None, :]


class Transformer(_EncoderDecoder):
    """logits = h · tokensᵀ,  with  h = cross_M(… cross_1(y, context), context)  and  context = block_N(… block_1(x)),

    x = dropout(√D · tokens[source] + positions),  y = dropout(√D · tokens[target] + positions),  the positions sinusoidal.

    Every decoder block is causal, and reads the context as well. A stack whose blocks normalise first ends in a norm. The tied table is
    used three times, and its gradient is a sum of three.

    Parameters
    ----------
    config : TransformerConfig
    dtype                        of the parameters
    rng                          np.random.Generator of the initial values

    Weights start as Xavier normals (with DeepNorm's β, where that is the order), tables as normals of deviation 1/√D.

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(source, target)` is inference. An encoder
    alone is a `Stack` of `Block`s, a decoder that reads a context one of `CrossBlock`s, as here.

    Examples
    --------
    >>> config = TransformerConfig(vocabulary=7, d_model=8, n_heads=2, encoder_layers=2, decoder_layers=1)
    >>> model = Transformer(config, rng=np.random.default_rng(0))
    >>> source, labels = np.array([[1, 2, 3, 4], [5, 6, 0, 0]]), np.array([[4, 3, 2], [6, 5, -100]])
    >>> loss, backward = model.loss(source, labels, source_mask=source != 0)
    >>> list(backward())
    ['tokens', 'encoder', 'decoder']
    >>> model(source, np.array([[0], [0]])).shape            # what comes first
    (2, 1, 7)
    """

    def __init__(self, config: TransformerConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        made: dict[str, Any] = dict(dtype=dtype, rng=rng)
        options: dict[str, Any] = dict(
            d_model=config.d_model, n_heads=config.n_heads, d_hidden=config.d_hidden, order="pre" if config.order == "pre" else "post",
            activation=config.activation, eps=config.norm_eps, dropout=config.dropout, attention_dropout=config.dropout, **made,
        )
        encoder, decoder = (one._asdict() for one in config.deepnorm)
        self.tokens = Embedding(config.vocabulary, config.d_model, **made)
        self.target_tokens = None if config.tied else Embedding(config.target_vocabulary, config.d_model, **made)
        self.positions = SinusoidalPositions(config.d_model)
        self.encoder = Stack([Block(**options, **encoder) for _ in range(config.encoder_layers)])
        self.decoder = Stack([CrossBlock(**options, **decoder) for _ in range(config.decoder_layers)])
        self.encoder_norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype) if config.order == "pre" else None
        self.decoder_norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype) if config.order == "pre" else None
        self.head = None if config.tied else Linear(config.d_model, config.target_vocabulary, bias=False, **made)
        for name, array in self.parameters().items():
            if name.endswith("proj.bias"):
                array[...] = 0
            elif name.endswith(("tokens.weight", "head.weight")):
                array[...] = rng.standard_normal(array.shape) / math.sqrt(config.d_model)

    def encode(self, source: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
               run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """source (..., S), source_mask (..., S), True = a token -> context (..., S, D); backward: dcontext -> grads (none in inference)."""
        x, embed_backward = self._embed(self.tokens, source, at(noise, "source"))
        mask = self._for_keys(source_mask, source.shape)
        x, encoder_backward = self.encoder.forward(x, mask=mask, noise=at(noise, "encoder"), run=run)
        context, norm_backward = _normalise(self.encoder_norm, x)

        def backward(dcontext):
            dx, dnorm = norm_backward(dcontext)
            dx, dencoder = encoder_backward(dx)
            return {"tokens": embed_backward(dx)} | _present(encoder=dencoder, encoder_norm=dnorm)

        return context, None if run == "inference" else backward

    def decode(self, target: NDArray, context: NDArray, *, source_mask: NDArray | None = None, noise: Noise | None = None,
               run: Run = "keep", caches: Caches | None = None) -> tuple[NDArray, Callable | None]:
        """target (..., T), context (..., S, D) -> h (..., T, D); backward: dh -> dcontext, grads (none in inference).

        With caches, one a layer, target (B, T) follows what those hold.
        """
        name, table = ("tokens", self.tokens) if self.target_tokens is None else ("target_tokens", self.target_tokens)
        x, embed_backward = self._embed(table, target, at(noise, "target"), caches[0][0].places if caches else None)
        mask = self._for_keys(source_mask, context.shape[:-1])
        x, decoder_backward = self.decoder.forward(
            x, context, context_mask=mask, causal=True, noise=at(noise, "decoder"), run=run, caches=caches
        )
        h, norm_backward = _normalise(self.decoder_norm, x)

        def backward(dh):
            dx, dnorm = norm_backward(dh)
            dx, dcontext, ddecoder = decoder_backward(dx)
            return dcontext, {name: embed_backward(dx)} | _present(decoder=ddecoder, decoder_norm=dnorm)

        return h, None if run == "inference" else backward

    def _embed(self, table: Embedding, ids: NDArray, noise: Noise | None, places: Places | None = None) -> tuple[NDArray, Callable]:
        """ids (..., T) -> x (..., T, D); backward: dx -> the table's gradients."""
        x, table_backward = table.forward(ids, noise=at(noise, "tokens"))
        scale = math.sqrt(self.config.d_model)
        x, positions_backward = self.positions.forward(scale * x, positions=None if places is None else places.positions)
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=noise)
        return x, lambda dx: table_backward(scale * positions_backward(dropout_backward(dx))[0])
