"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners")."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.configs.gpt2 import GPT2Config
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._routed import Routes
from torch_impl.layers.block import Block
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.norm import LayerNorm
from torch_impl.layers.positions import LearnedPositions
from torch_impl.layers.stack import Run
from torch_impl.models._causal import CausalLM
from torch_impl.ops.dropout import dropout


class GPT2(CausalLM):
    """logits = h · tokensᵀ,  with  h = norm(block_n(… block_1(dropout(tokens[ids] + positions)))),  every block causal.

    ids (..., T) -> logits (..., T, V). `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: GPT2Config, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None, prepare: Callable[[nn.Module], nn.Module] | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, **made)
        self.positions = LearnedPositions(config.max_length, config.d_model, **made)

        def block(i: int) -> nn.Module:
            return Block(config.d_model, config.n_heads, config.d_hidden, activation=config.activation, eps=config.norm_eps,
                         dropout=config.dropout, attention_dropout=config.dropout, **made)

        self.blocks = self._stack(block, prepare, rng)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device)
        self.head = None
        self._start(self, rng, blocks=prepare is None)

    def trunk(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[Tensor, Routes]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            x = self.positions(x, positions=caches[0].places.positions if caches else None)
            x = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
            x, routes = self.blocks.routed(x, real=real, causal=True, noise=at(noise, "blocks"), run=run, caches=caches)
            return self.norm(x), routes
