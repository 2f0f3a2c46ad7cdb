"""Llama (Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288) and its relatives: Mistral, SmolLM2, Qwen."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.configs.llama import LlamaConfig
from byhand.noise import Noise, at
from torch_impl.decode.cache import Cache, LayerCache, Places
from torch_impl.decode.llama_step import llama_step
from torch_impl.layers._routed import Routes
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.grouped_query_attention import GroupedQueryAttention
from torch_impl.layers.linear import Linear
from torch_impl.layers.llama_block import LlamaBlock
from torch_impl.layers.norm import RMSNorm
from torch_impl.layers.stack import Run
from torch_impl.models._causal import CausalLM
from torch_impl.ops.dropout import dropout
from torch_impl.positions.rope_scaling import rope_frequencies
from torch_impl.positions.rotary import rotary_table


class Llama(CausalLM):
    """logits = head(h),  with  h = norm(block_n(… block_1(dropout(tokens[ids])))),  every block causal.

    ids (..., T) -> logits (..., T, V). `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: LlamaConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None, prepare: Callable[[nn.Module], nn.Module] | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, **made)

        def block(i: int) -> nn.Module:
            return LlamaBlock(
                config.d_model, config.n_heads, config.d_hidden, n_kv_heads=config.n_kv_heads, head_width=config.head_width,
                attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, qk_norm=config.qk_norm,
                window=None if config.window is None else (config.window - 1, 0), activation=config.activation, eps=config.norm_eps,
                dropout=config.dropout, attention_dropout=config.dropout, mlp=self._mlp(i, **made), **made,
            )

        self.blocks = self._stack(block, prepare, rng)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device)
        self.head = None if config.tied else Linear(config.d_model, config.vocabulary, bias=False, **made)
        self._start(self, rng, blocks=prepare is None)

    def _mlp(self, i: int, **made: Any) -> nn.Module | None:
        """What stands in the place of block i's feed-forward layer; None: nothing, the block makes its own."""
        return None

    def trunk(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[Tensor, Routes]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            x = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
            rotary = self.rotary(x, caches[0].places if caches else None)
            x, routes = self.blocks.routed(x, real=real, rotary=rotary, causal=True, noise=at(noise, "blocks"), run=run, caches=caches)
            return self.norm(x), routes

    def _extended(self, ids: Tensor, cache: Cache, places: Places) -> Tensor:
        if places.positions.shape[1] != 1 or not self._flat():
            return super()._extended(ids, cache, places)
        self._fits(places)
        return llama_step(self, self.tokens(ids), cache.layers(places))

    def _flat(self) -> bool:
        """Whether `llama_step` knows all that the blocks do."""
        return all(
            type(block) is LlamaBlock and type(block.attn) is GroupedQueryAttention and type(block.norm1) is type(block.norm2) is RMSNorm
            and block.attn.sinks is None and block.attn.soft_cap is None
            for block in self.blocks
        )

    def rotary(self, x: Tensor, places: Places | None) -> tuple[Tensor, Tensor]:
        """cos and sin (T, R/2) of the angles by which queries and keys at the positions 0 … T−1 are turned; or (B, T, R/2), at others."""
        length = x.shape[-2] if places is None else places.longest
        frequencies, attention_factor = rope_frequencies(self.config.rope, length=length)
        positions = torch.arange(length, device=x.device) if places is None else places.positions
        return rotary_table(positions, frequencies=frequencies, attention_factor=attention_factor, dtype=x.dtype)
