"""Llama (Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288) and its relatives: Mistral, SmolLM2, Qwen."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank
from byhand.configs.llama import LlamaConfig
from byhand.noise import Noise, at
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.llama_block import LlamaBlock
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.linear_cross_entropy import linear_cross_entropy
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.linear import linear
from numpy_impl.positions.rope_scaling import rope_frequencies
from numpy_impl.positions.rotary import rotary_table


class Llama(Module):
    """logits = head(h),  with  h = norm(block_n(… block_1(dropout(tokens[ids])))),  every block causal.

    Positions enter inside each block, where they turn queries and keys. With a tied head the table of token embeddings is used twice,
    to read tokens and to predict them, and its gradient is a sum of two.

    Parameters
    ----------
    config : LlamaConfig
    dtype                  of the parameters
    rng                    np.random.Generator of the initial values

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
    >>> abs(float(loss) - math.log(7)) < 0.1                 # it starts knowing nothing
    True
    """

    def __init__(self, config: LlamaConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, dtype=dtype, rng=rng)
        self.blocks = Stack([
            LlamaBlock(
                config.d_model, config.n_heads, config.d_hidden, n_kv_heads=config.n_kv_heads, head_width=config.head_width,
                attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, qk_norm=config.qk_norm,
                window=None if config.window is None else (config.window - 1, 0), activation=config.activation, eps=config.norm_eps,
                dropout=config.dropout, attention_dropout=config.dropout, dtype=dtype, rng=rng,
            )
            for _ in range(config.n_layers)
        ])
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.head = None if config.tied else Linear(config.d_model, config.vocabulary, bias=False, dtype=dtype, rng=rng)
        for name, array in self.parameters().items():
            if name.endswith("proj.bias"):
                array[...] = 0
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                array[...] = 0.02 / math.sqrt(2 * config.n_layers) * rng.standard_normal(array.shape)
            elif name.endswith(("proj.weight", "tokens.weight", "head.weight")):
                array[...] = 0.02 * rng.standard_normal(array.shape)

    def __call__(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "inference") -> NDArray:
        return self.forward(ids, noise=noise, run=run)[0]

    def forward(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) in [0, V) -> logits (..., T, V); backward: dlogits -> grads (no backward in inference)."""
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        logits, head_backward = linear(h, self._head_weight)

        def backward(dlogits):
            dh, dhead, _ = head_backward(dlogits)
            return self._with_head(hidden_backward(dh), dhead)

        return logits, None if run == "inference" else backward

    def loss(self, ids: NDArray, targets: NDArray, *, normalizer: float | None = None, noise: Noise | None = None,
             run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        ids, targets (..., T) -> loss (); backward: dloss (), 1 by default -> grads (no backward in inference).
        """
        h, hidden_backward = self.hidden(ids, noise=noise, run=run)
        if run == "inference":
            return softmax_cross_entropy(linear(h, self._head_weight)[0], targets=targets, normalizer=normalizer)[0], None
        loss, head_backward = linear_cross_entropy(h, self._head_weight, targets=targets, normalizer=normalizer)

        def backward(dloss=1.0):
            dh, dhead = head_backward(np.asarray(dloss, loss.dtype))
            return self._with_head(hidden_backward(dh), dhead)

        return loss, backward

    def hidden(self, ids: NDArray, *, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids (..., T) -> h (..., T, D), what the head reads; backward: dh -> grads, without the head's (no backward in inference)."""
        at_least_rank("Llama", 1, ids=ids)
        x, tokens_backward = self.tokens.forward(ids)                   # (..., T, D)
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        x, blocks_backward = self.blocks.forward(x, rotary=self._rotary(x), causal=True, noise=at(noise, "blocks"), run=run)
        h, norm_backward = self.norm.forward(x)

        def backward(dh):
            dx, dnorm = norm_backward(dh)
            dx, dblocks = blocks_backward(dx)
            return {"tokens": tokens_backward(dropout_backward(dx)), "blocks": dblocks, "norm": dnorm}

        return h, None if run == "inference" else backward

    def _rotary(self, x: NDArray) -> tuple[NDArray, NDArray]:
        """cos and sin (T, R/2) of the angles by which queries and keys at the positions 0 … T−1 are turned."""
        t = x.shape[-2]
        frequencies, attention_factor = rope_frequencies(self.config.rope, length=t)
        return rotary_table(np.arange(t), frequencies=frequencies, attention_factor=attention_factor, dtype=x.dtype)

    @property
    def _head_weight(self) -> NDArray:
        return self.tokens.weight if self.head is None else self.head.weight

    def _with_head(self, grads: dict[str, Any], dhead: NDArray) -> dict[str, Any]:
        """The gradients with the head's: its own, or with a tied head a second part of the token table's (unless that is frozen)."""
        if self.head is not None:
            return grads | {"head": self.head.grads(weight=dhead)}
        return grads | {"tokens": {name: dtable + dhead for name, dtable in grads["tokens"].items()}}
