"""Llama (Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288) and its relatives: Mistral, SmolLM2, Qwen."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.configs.llama import LlamaConfig
from byhand.noise import Noise, at
from numpy_impl.decode.cache import Cache, LayerCache, Places
from numpy_impl.decode.llama_step import llama_step
from numpy_impl.layers._routed import Routes
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.grouped_query_attention import GroupedQueryAttention
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.llama_block import LlamaBlock
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.layers.stack import Run
from numpy_impl.models._causal import CausalLM
from numpy_impl.ops.dropout import dropout
from numpy_impl.positions.rope_scaling import rope_frequencies
from numpy_impl.positions.rotary import rotary_table


class Llama(CausalLM):
    """logits = head(h),  with  h = norm(block_n(… block_1(dropout(tokens[ids])))),  every block causal.

    Positions enter inside each block, where they turn queries and keys. With a tied head the table of token embeddings is used twice,
    to read tokens and to predict them, and its gradient is a sum of two.

    Parameters
    ----------
    config : LlamaConfig
    dtype                  of the parameters
    rng                    np.random.Generator of the initial values
    prepare                block -> block, called with each block as soon as it is made: a quantizer, say, so that the whole model never
                           stands in full precision; None: nothing

    Weights start as normals of deviation 0.02, biases at 0, norms at 1; o_proj and down_proj, whose outputs add up over 2 · n_layers
    residual branches, are smaller by √(2 · n_layers).

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(ids)` is inference.

    Examples
    --------
    >>> config = LlamaConfig(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=4, n_kv_heads=2)
    >>> model = Llama(config, rng=np.random.default_rng(0))
    >>> ids = np.array([[1, 2, 3]])
    >>> logits, backward = model.forward(ids)
    >>> grads = backward(np.ones_like(logits))               # ids are no floats: the gradients alone come back
    >>> logits.shape, list(grads)
    ((1, 3, 7), ['tokens', 'blocks', 'norm', 'head'])
    >>> loss, backward = model.loss(ids, np.array([[2, 3, 4]]))
    >>> abs(float(loss) - float(np.log(7))) < 0.1                 # it starts knowing nothing
    True
    """

    def __init__(self, config: LlamaConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
                 prepare: Callable[[Module], Module] | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, dtype=dtype, rng=rng)

        def block(i: int) -> Module:
            return LlamaBlock(
                config.d_model, config.n_heads, config.d_hidden, n_kv_heads=config.n_kv_heads, head_width=config.head_width,
                attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, qk_norm=config.qk_norm,
                window=None if config.window is None else (config.window - 1, 0), activation=config.activation, eps=config.norm_eps,
                dropout=config.dropout, attention_dropout=config.dropout, mlp=self._mlp(i, dtype, rng), dtype=dtype, rng=rng,
            )

        self.blocks = self._stack(block, prepare, rng)
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.head = None if config.tied else Linear(config.d_model, config.vocabulary, bias=False, dtype=dtype, rng=rng)
        self._start(self, rng, blocks=prepare is None)

    def _mlp(self, i: int, dtype: DTypeLike, rng: np.random.Generator) -> Module | None:
        """What stands in the place of block i's feed-forward layer; None: nothing, the block makes its own."""
        return None

    def trunk(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None, run: Run = "keep",
              caches: Sequence[LayerCache] | None = None) -> tuple[NDArray, Routes, Callable | None]:
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        inputs = dict(rotary=self.rotary(x, caches[0].places if caches else None), causal=True, real=real)
        x, routes, blocks_backward = self.blocks.routed(x, **inputs, noise=at(noise, "blocks"), run=run, caches=caches)
        h, norm_backward = self.norm.forward(x)

        def backward(dh, dlogits=()):
            dx, dnorm = norm_backward(dh)
            dx, dblocks = blocks_backward(dx, dlogits)
            return dropout_backward(dx), {"blocks": dblocks, "norm": dnorm}

        return h, routes, None if run == "inference" else backward

    def _extended(self, ids: NDArray, cache: Cache, places: Places) -> NDArray:
        if places.positions.shape[1] != 1 or not self._flat():
            return super()._extended(ids, cache, places)
        self._fits(places)
        return llama_step(self, self.tokens(ids), cache.layers(places))

    def _flat(self) -> bool:
        """Whether `llama_step` knows all that the blocks do."""
        return all(
            type(block) is LlamaBlock and type(block.attn) is GroupedQueryAttention and type(block.norm1) is type(block.norm2) is RMSNorm
            and block.attn.sinks is None and block.attn.soft_cap is None
            for block in self.blocks.layers
        )

    def rotary(self, x: NDArray, places: Places | None) -> tuple[NDArray, NDArray]:
        """cos and sin (T, R/2) of the angles by which queries and keys at the positions 0 … T−1 are turned; or (B, T, R/2), at others."""
        t = x.shape[-2]
        positions, length = (np.arange(t), t) if places is None else (places.positions, places.longest)
        frequencies, attention_factor = rope_frequencies(self.config.rope, length=length)
        return rotary_table(positions, frequencies=frequencies, attention_factor=attention_factor, dtype=x.dtype)
