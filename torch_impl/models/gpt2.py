"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners")."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.configs.gpt2 import GPT2Config
from byhand.noise import Noise, at
from torch_impl.layers.block import Block
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.norm import LayerNorm
from torch_impl.layers.positions import LearnedPositions
from torch_impl.layers.stack import Run, Stack
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.dropout import dropout
from torch_impl.ops.linear import linear


class GPT2(nn.Module):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(tokens[ids] + positions)))),  every block causal.

    ids (..., T) -> logits (..., T, V). `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: GPT2Config, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, **made)
        self.positions = LearnedPositions(config.max_length, config.d_model, **made)
        self.blocks = Stack([
            Block(config.d_model, config.n_heads, config.d_hidden, activation=config.activation, eps=config.norm_eps,
                  dropout=config.dropout, attention_dropout=config.dropout, **made)
            for _ in range(config.n_layers)
        ])
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device)
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
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            x = self.positions(self.tokens(ids))
            x = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
            return self.norm(self.blocks(x, causal=True, noise=at(noise, "blocks"), run=run))
