"""The encoder–decoder Transformer (Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import booleans, exact_rank, same_shape
from byhand.configs.transformer import TransformerConfig
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache, Places
from torch_impl.decode.context import ContextCache, ContextStore
from torch_impl.decode.kinds import make_stores
from torch_impl.layers.block import Block
from torch_impl.layers.cross_block import CrossBlock
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import LayerNorm
from torch_impl.layers.positions import SinusoidalPositions
from torch_impl.layers.stack import Run, Stack
from torch_impl.models._head import LanguageModel
from torch_impl.ops.dropout import dropout
from torch_impl.ops.shift_right import shift_right

Caches = Sequence[tuple[LayerCache, ContextStore]]


class _EncoderDecoder(LanguageModel):
    """What Transformer and T5 share: logits = head(decode(target, encode(source))), and the loss of predicting labels one by one."""

    kind_of_cache = ContextCache

    def forward(self, source: Tensor, target: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None,
                run: Run = "keep") -> Tensor:
        """source (..., S), target (..., T), source_mask (..., S), True = a token -> logits (..., T, V)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            h = self.hidden(source, target, source_mask=source_mask, noise=noise, run=run)
            return self.logits(h, noise=noise)

    def loss(self, source: Tensor, labels: Tensor, *, source_mask: Tensor | None = None, normalizer: float | None = None,
             noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[label] / normalizer, over the labels that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            target = shift_right(labels, start=self.config.start, padding=self.config.padding)
            h = self.hidden(source, target, source_mask=source_mask, noise=noise, run=run)
            return self.loss_of(h, labels, normalizer=normalizer, noise=noise)

    def hidden(self, source: Tensor, target: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None,
               run: Run = "keep") -> Tensor:
        """source, target -> h (..., T, D), what the head reads."""
        context = self.encode(source, source_mask=source_mask, noise=noise, run=run)
        return self.decode(target, context, source_mask=source_mask, noise=noise, run=run)

    @torch.no_grad()
    def new_cache(self, source: Tensor, *, source_mask: Tensor | None = None, kind: str = "auto", **options: Any) -> ContextCache:
        """A cache for `extend` that knows the source (B, S) and no target yet; its stores are of a kind of `decode.kinds`."""
        exact_rank(type(self).__name__, 2, source=source)
        context = self.encode(source, source_mask=source_mask, run="inference")
        return ContextCache(make_stores([None] * len(self.decoder), kind=kind, **options), context, source_mask)

    def _extended(self, ids: Tensor, cache: ContextCache, places: Places) -> Tensor:
        return self.decode(ids, cache.context, source_mask=cache.mask, run="inference", caches=cache.both(places))

    def _for_keys(self, source_mask: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
        """(..., S), True where there is a token, as (..., 1, 1, S): the same keys for all heads and queries."""
        booleans(type(self).__name__, source_mask=source_mask)
        same_shape(type(self).__name__, shape, source_mask=source_mask)
        return None if source_mask is None else source_mask[..., None, None, :]


class Transformer(_EncoderDecoder):
    """logits = h · tokensᵀ,  with  h = cross_M(… cross_1(y, context), context)  and  context = block_N(… block_1(x)),

    x = dropout(√D · tokens[source] + positions),  y = dropout(√D · tokens[target] + positions),  the positions sinusoidal.

    Every decoder block is causal. `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: TransformerConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        self.config = config
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
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
        pre = config.order == "pre"
        self.encoder_norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device) if pre else None
        self.decoder_norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device) if pre else None
        self.head = None if config.tied else Linear(config.d_model, config.target_vocabulary, bias=False, **made)
        for name, parameter in self.named_parameters():
            if name.endswith("proj.bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("tokens.weight", "head.weight")):
                nn.init.normal_(parameter, std=1 / math.sqrt(config.d_model), generator=rng)

    def encode(self, source: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """source (..., S), source_mask (..., S), True = a token -> context (..., S, D)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            x = self._embed(self.tokens, source, at(noise, "source"))
            mask = self._for_keys(source_mask, tuple(source.shape))
            x = self.encoder(x, mask=mask, noise=at(noise, "encoder"), run=run)
            return x if self.encoder_norm is None else self.encoder_norm(x)

    def decode(self, target: Tensor, context: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None,
               run: Run = "keep", caches: Caches | None = None) -> Tensor:
        """target (..., T), context (..., S, D) -> h (..., T, D). With caches, one a layer, target (B, T) follows what those hold."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            table = self.tokens if self.target_tokens is None else self.target_tokens
            x = self._embed(table, target, at(noise, "target"), caches[0][0].places.positions if caches else None)
            mask = self._for_keys(source_mask, tuple(context.shape[:-1]))
            x = self.decoder(x, context, context_mask=mask, causal=True, noise=at(noise, "decoder"), run=run, caches=caches)
            return x if self.decoder_norm is None else self.decoder_norm(x)

    def _embed(self, table: Embedding, ids: Tensor, noise: Noise | None, positions: Tensor | None = None) -> Tensor:
        x = self.positions(math.sqrt(self.config.d_model) * table(ids, noise=at(noise, "tokens")), positions=positions)
        return dropout(x, p=self.config.dropout, noise=noise)
