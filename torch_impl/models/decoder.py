"""A causal language model whose architecture is a choice: what the architecture experiments train."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank
from byhand.configs.decoder import DecoderConfig
from byhand.noise import Noise, at
from torch_impl.layers.decoder_block import DecoderBlock
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.norm import LayerNorm, RMSNorm
from torch_impl.layers.positions import LearnedPositions, SinusoidalPositions
from torch_impl.layers.stack import Run, Stack
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.dropout import dropout
from torch_impl.ops.linear import linear


class Decoder(nn.Module):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(c · tokens[ids] + positions)))),  every block causal.

    ids (..., T) -> logits (..., T, V). c is √D beside sinusoids, and 1 otherwise; the norm is there with norm "pre". `run` is how the
    blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: DecoderConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, rng=rng, **here)
        self.positions: nn.Module | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config.max_length, config.d_model, rng=rng, **here)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.d_model, dtype=dtype)
        self.blocks = Stack([
            DecoderBlock(
                config.d_model, config.n_heads, config.d_hidden, norm=config.norm, norm_type=config.norm_type,
                activation=config.activation, bias=config.bias, eps=config.norm_eps, dropout=config.dropout, attention=config.attention,
                positions=config.positions, window=config.window, stride=config.stride, local=config.local, rope_base=config.rope_base,
                buckets=config.buckets, max_distance=config.max_distance, rng=rng, **here,
            )
            for _ in range(config.n_layers)
        ])
        self.norm: nn.Module | None = None
        if config.norm == "pre":
            self.norm = (LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias, **here) if config.norm_type == "layer"
                         else RMSNorm(config.d_model, eps=config.norm_eps, **here))
        for name, parameter in self.named_parameters():
            if name.endswith("proj.bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layers), generator=rng)
            elif name.endswith(("proj.weight", "tokens.weight")):
                nn.init.normal_(parameter, std=0.02, generator=rng)

    def forward(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return linear(self.hidden(ids, noise=noise, run=run), self.tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            return softmax_cross_entropy(self(ids, noise=noise, run=run), targets=targets, normalizer=normalizer)

    def hidden(self, ids: Tensor, *, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """ids (..., T) -> h (..., T, D), what the head reads."""
        at_least_rank("Decoder", 1, ids=ids)
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            c = math.sqrt(self.config.d_model) if self.config.positions == "sinusoidal" else 1.0
            x = c * self.tokens(ids)
            x = x if self.positions is None else self.positions(x)
            x = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
            x = self.blocks(x, noise=at(noise, "blocks"), run=run)
            return x if self.norm is None else self.norm(x)
