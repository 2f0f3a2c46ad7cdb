"""A causal language model whose architecture is a choice: what the architecture experiments train."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.configs.decoder import DecoderConfig
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._routed import Routes
from torch_impl.layers.decoder_block import DecoderBlock
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.norm import LayerNorm, RMSNorm
from torch_impl.layers.positions import LearnedPositions, SinusoidalPositions
from torch_impl.layers.stack import Run
from torch_impl.models._causal import CausalLM
from torch_impl.ops.dropout import dropout


class Decoder(CausalLM):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(c · tokens[ids] + positions)))),  every block causal.

    ids (..., T) -> logits (..., T, V). c is √D beside sinusoids, and 1 otherwise; the norm is there with norm "pre". `run` is how the
    blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: DecoderConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None, prepare: Callable[[nn.Module], nn.Module] | None = None):
        super().__init__()
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, rng=rng, **here)
        self.positions: nn.Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config.max_length, config.d_model, rng=rng, **here)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.d_model, dtype=dtype)

        def block(i: int) -> nn.Module:
            return DecoderBlock(
                config.d_model, config.n_heads, config.d_hidden, norm=config.norm, norm_type=config.norm_type,
                activation=config.activation, bias=config.bias, eps=config.norm_eps, dropout=config.dropout, attention=config.attention,
                positions=config.positions, window=config.window, stride=config.stride, local=config.local, rope_base=config.rope_base,
                buckets=config.buckets, max_distance=config.max_distance, rng=rng, **here,
            )

        self.blocks = self._stack(block, prepare, rng)
        self.norm: nn.Module | None = None
        if config.norm == "pre":
            self.norm = (LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias, **here) if config.norm_type == "layer"
                         else RMSNorm(config.d_model, eps=config.norm_eps, **here))
        self.head = None
        self._start(self, rng, blocks=prepare is None)

    def trunk(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[Tensor, Routes]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            c = math.sqrt(self.config.d_model) if self.config.positions == "sinusoidal" else 1.0
            places = caches[0].places.positions if caches else None
            x = c * x if self.positions is None else self.positions(c * x, positions=places)
            x = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
            x, routes = self.blocks.routed(x, real=real, noise=at(noise, "blocks"), run=run, caches=caches)
            return x if self.norm is None else self.norm(x), routes
