"""T5 (Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text transformer", arXiv:1910.10683)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank
from byhand.configs.t5 import T5Config
from byhand.noise import Noise, at
from torch_impl.layers._remembered import bias_by_distance
from torch_impl.layers.block import Block
from torch_impl.layers.cross_block import CrossBlock
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import RMSNorm
from torch_impl.layers.stack import Run, Stack
from torch_impl.models.transformer import Caches, _EncoderDecoder
from torch_impl.ops.dropout import dropout
from torch_impl.positions.t5 import t5_bias


class T5(_EncoderDecoder):
    """logits = h/√D · tokensᵀ,  or  h · headᵀ  in v1.1,  with

    h = dropout(decoder_norm(cross_M(… cross_1(y, context, bias_d)))),  y = dropout(tokens[target]),
    context = dropout(encoder_norm(block_N(… block_1(x, bias_e)))),  x = dropout(tokens[source]).

    bias_e[h, t, s] = encoder_positions[bucket(t − s), h] is added to the scores in every block of the encoder, bias_d likewise. Every
    decoder block is causal. `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: T5Config, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        self.config = config
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        options: dict[str, Any] = dict(
            d_model=config.d_model, n_heads=config.n_heads, d_hidden=config.d_hidden, norm="rms", activation=config.activation, bias=False,
            eps=config.norm_eps, dropout=config.dropout, attention_dropout=config.dropout, hidden_dropout=config.dropout,
            head_width=config.head_width, scale=1.0, rng=rng, **here,
        )
        table = config.buckets, config.n_heads
        self.tokens = Embedding(config.vocabulary, config.d_model, rng=rng, **here)
        self.encoder_positions = nn.Parameter(torch.empty(table, **here))
        self.encoder = Stack([Block(**options) for _ in range(config.encoder_layers)])
        self.encoder_norm = RMSNorm(config.d_model, eps=config.norm_eps, **here)
        self.decoder_positions = nn.Parameter(torch.empty(table, **here))
        self.decoder = Stack([CrossBlock(**options) for _ in range(config.decoder_layers)])
        self.decoder_norm = RMSNorm(config.d_model, eps=config.norm_eps, **here)
        self.head = None if config.tied else Linear(config.d_model, config.vocabulary, bias=False, rng=rng, **here)
        for name, parameter in self.named_parameters():
            if name.endswith("positions"):
                nn.init.normal_(parameter, std=1 / math.sqrt(config.d_model), generator=rng)
            elif name.endswith(("proj.weight", "head.weight")):
                parts = config.head_width if name.endswith("q_proj.weight") else 1
                nn.init.normal_(parameter, std=1 / math.sqrt(parts * parameter.shape[1]), generator=rng)

    def encode(self, source: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """source (..., S), source_mask (..., S), True = a token -> context (..., S, D)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            at_least_rank("T5", 1, source=source)
            x = self._embed(source, at(noise, "source"))
            mask = self._for_keys(source_mask, tuple(source.shape))
            s = source.shape[-1]
            bias = t5_bias(self.encoder_positions, queries=s, keys=s, max_distance=self.config.max_distance)
            x = self.encoder(x, bias, mask=mask, noise=at(noise, "encoder"), run=run)
            return self._end(self.encoder_norm, x, at(noise, "encoder_dropout"))

    def decode(self, target: Tensor, context: Tensor, *, source_mask: Tensor | None = None, noise: Noise | None = None,
               run: Run = "keep", caches: Caches | None = None) -> Tensor:
        """target (..., T), context (..., S, D) -> h (..., T, D), divided by √D if the head is tied. With caches, one a layer, target (B, T)
        follows what those hold."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            at_least_rank("T5", 1, target=target)
            x = self._embed(target, at(noise, "target"))
            mask = self._for_keys(source_mask, tuple(context.shape[:-1]))
            t, places = target.shape[-1], None if caches is None else caches[0][0].places
            s = t if places is None else places.longest
            alike = places is None or places.start is not None
            options: dict[str, Any] = dict(bidirectional=False, max_distance=self.config.max_distance)
            bias = t5_bias(self.decoder_positions, queries=t if alike else 1, keys=s, **options)
            if not alike:  # the first key of every row stands at position 0
                bias = bias_by_distance(bias, places.positions[:, :, None] - torch.arange(s, device=bias.device))
            x = self.decoder(x, context, bias, context_mask=mask, causal=True, noise=at(noise, "decoder"), run=run, caches=caches)
            h = self._end(self.decoder_norm, x, at(noise, "decoder_dropout"))
            return h / math.sqrt(self.config.d_model) if self.config.tied else h

    def _embed(self, ids: Tensor, noise: Noise | None) -> Tensor:
        return dropout(self.tokens(ids, noise=at(noise, "tokens")), p=self.config.dropout, noise=noise)

    def _end(self, norm: RMSNorm, x: Tensor, noise: Noise | None) -> Tensor:
        return dropout(norm(x), p=self.config.dropout, noise=noise)
