"""BERT (Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers for language understanding", arXiv:1810.04805)."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, booleans, choice, demand, same_shape
from byhand.configs.bert import BertConfig
from byhand.noise import Noise, at
from torch_impl.layers.block import Block
from torch_impl.layers.embedding import Embedding
from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import LayerNorm
from torch_impl.layers.positions import LearnedPositions
from torch_impl.layers.stack import Run, Stack
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.dropout import dropout
from torch_impl.ops.linear import linear

Device = torch.device | str | None


class Bert(nn.Module):
    """h = block_n(… block_1(dropout(norm(tokens[ids] + segments[segments] + positions)))),  every block post-norm, and seeing both ways.

    ids, segments and mask (..., T) -> h (..., T, D). mask is True where there is a token and not padding. `run` is how the blocks run,
    "keep", "recompute" or "inference", as `Stack` explains.
    """

    def __init__(self, config: BertConfig, *, dtype: torch.dtype = torch.float32, device: Device = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, padding_idx=config.padding, **made)
        self.segments = Embedding(config.segments, config.d_model, **made) if config.segments else None
        self.positions = LearnedPositions(config.max_length, config.d_model, **made)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device)
        self.blocks = Stack([
            Block(config.d_model, config.n_heads, config.d_hidden, order="post", activation=config.activation, eps=config.norm_eps,
                  dropout=config.dropout, attention_dropout=config.dropout, **made)
            for _ in range(config.n_layers)
        ])
        _start(self, ("tokens.weight", "segments.weight", "proj.weight"), ("proj.bias",), rng)
        if config.padding is not None:
            with torch.no_grad():
                self.tokens.weight[config.padding] = 0

    def forward(self, ids: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None, noise: Noise | None = None,
                run: Run = "keep") -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            at_least_rank("Bert", 1, ids=ids)
            booleans("Bert", mask=mask)
            same_shape("Bert", ids.shape, segments=segments, mask=mask)
            demand("Bert", segments is None or self.config.segments > 0, "no segments, of which this config has none", segments=segments)
            x = self.tokens(ids)
            if self.segments is not None:
                x = x + self.segments(torch.zeros_like(ids) if segments is None else segments)
            x = dropout(self.norm(self.positions(x)), p=self.config.dropout, noise=at(noise, "dropout"))
            keys = None if mask is None else mask[..., None, None, :]
            return self.blocks(x, mask=keys, noise=at(noise, "blocks"), run=run)


class _BertHead(nn.Module):
    """A Bert and what reads it: logits, and their cross-entropy."""

    config: BertConfig
    bert: Bert

    def forward(self, ids: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None, noise: Noise | None = None,
                run: Run = "keep") -> Tensor:
        """ids, segments and mask (..., T) as Bert takes them -> logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            h = self.bert(ids, segments=segments, mask=mask, noise=at(noise, "bert"), run=run)
            return self._read(h, at(noise, "head"))

    def loss(self, ids: Tensor, targets: Tensor, *, segments: Tensor | None = None, mask: Tensor | None = None,
             normalizer: float | None = None, noise: Noise | None = None, run: Run = "keep") -> Tensor:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            logits = self(ids, segments=segments, mask=mask, noise=noise, run=run)
            return softmax_cross_entropy(logits, targets=targets, normalizer=normalizer)

    def _read(self, h: Tensor, noise: Noise | None) -> Tensor:
        raise NotImplementedError


class BertMaskedLM(_BertHead):
    """logits = norm(activation(transform(h))) · tokensᵀ + bias.  ids (..., T) -> logits (..., T, V)."""

    tied_table = "bert.tokens"

    def __init__(self, config: BertConfig, *, dtype: torch.dtype = torch.float32, device: Device = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        choice("BertMaskedLM", ACTIVATIONS, activation=config.activation)
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.bert = Bert(config, **made)
        self.transform = Linear(config.d_model, config.d_model, **made)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype, device=device)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary, dtype=dtype, device=device))
        _start(self.transform, ("weight",), ("bias",), rng)

    def _read(self, h: Tensor, noise: Noise | None) -> Tensor:
        h = self.norm(ACTIVATIONS[self.config.activation](self.transform(h)))
        return linear(h, self.bert.tokens.weight, self.bias)


class BertSequenceClassifier(_BertHead):
    """logits = head(dropout(tanh(pooler(h₀)))),  where h₀ stands at the first token, [CLS]; DistilBERT has relu for tanh.

    ids (..., T), T ≥ 1 -> logits (..., C).
    """

    def __init__(self, config: BertConfig, *, dtype: torch.dtype = torch.float32, device: Device = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.bert = Bert(config, **made)
        self.pooler = Linear(config.d_model, config.d_model, **made)
        self.head = Linear(config.d_model, config.classes, **made)
        _start(self, ("pooler.weight", "head.weight"), ("pooler.bias", "head.bias"), rng)

    def _read(self, h: Tensor, noise: Noise | None) -> Tensor:
        demand("BertSequenceClassifier", h.shape[-2] > 0, "at least one token", hidden=h)
        pooled = _POOLERS[self.config.pooler](self.pooler(h[..., 0, :]))
        return self.head(dropout(pooled, p=self.config.dropout, noise=noise))


class BertTokenClassifier(_BertHead):
    """logits = head(dropout(h)).  ids (..., T) -> logits (..., T, C)."""

    def __init__(self, config: BertConfig, *, dtype: torch.dtype = torch.float32, device: Device = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.config = config
        self.bert = Bert(config, **made)
        self.head = Linear(config.d_model, config.classes, **made)
        _start(self.head, ("weight",), ("bias",), rng)

    def _read(self, h: Tensor, noise: Noise | None) -> Tensor:
        return self.head(dropout(h, p=self.config.dropout, noise=noise))


_POOLERS = {"tanh": torch.tanh, "relu": torch.relu}


def _start(module: nn.Module, normal: tuple[str, ...], zero: tuple[str, ...], rng: torch.Generator | None) -> None:
    """Normals of deviation 0.02 for the parameters whose names end so, and zeros."""
    for name, parameter in module.named_parameters():
        if name.endswith(normal):
            nn.init.normal_(parameter, std=0.02, generator=rng)
        elif name.endswith(zero):
            nn.init.zeros_(parameter)
