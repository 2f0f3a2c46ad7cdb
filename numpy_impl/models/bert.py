"""BERT (Devlin et al. 2019, "BERT: pre-training of deep bidirectional transformers for language understanding", arXiv:1810.04805)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, booleans, choice, demand, same_shape
from byhand.configs.bert import BertConfig
from byhand.noise import Noise, at
from numpy_impl.layers.block import Block
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import LayerNorm
from numpy_impl.layers.positions import LearnedPositions
from numpy_impl.layers.stack import Run, Stack
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.models._head import add_grads
from numpy_impl.ops.dropout import dropout
from numpy_impl.ops.linear import frozen_linear, linear
from numpy_impl.ops.relu import relu


class Bert(Module):
    """h = block_n(… block_1(dropout(norm(tokens[ids] + segments[segments] + positions)))),  every block post-norm, and seeing both ways.

    The heads below turn h into what is wanted.

    Parameters
    ----------
    config : BertConfig
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values

    Weights start as normals of deviation 0.02, biases and the embedding of padding at 0.

    `run` is how the blocks run, "keep", "recompute" or "inference", as `Stack` explains. `model(ids)` is inference.

    Examples
    --------
    >>> config = BertConfig(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2)
    >>> ids = np.array([[1, 2, 3, 4], [5, 6, 0, 0]])
    >>> h, backward = Bert(config, rng=np.random.default_rng(0)).forward(ids, mask=ids != 0)
    >>> grads = backward(np.ones_like(h))                    # ids are no floats: the gradients alone come back
    >>> h.shape, list(grads)
    ((2, 4, 4), ['tokens', 'positions', 'norm', 'blocks', 'segments'])
    """

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.tokens = Embedding(config.vocabulary, config.d_model, padding_idx=config.padding, dtype=dtype, rng=rng)
        self.segments = Embedding(config.segments, config.d_model, dtype=dtype, rng=rng) if config.segments else None
        self.positions = LearnedPositions(config.max_length, config.d_model, dtype=dtype, rng=rng)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.blocks = Stack([
            Block(config.d_model, config.n_heads, config.d_hidden, order="post", activation=config.activation, eps=config.norm_eps,
                  dropout=config.dropout, attention_dropout=config.dropout, dtype=dtype, rng=rng)
            for _ in range(config.n_layers)
        ])
        _start(self, ("tokens.weight", "segments.weight", "proj.weight"), ("proj.bias",), rng)
        if config.padding is not None:
            self.tokens.weight[config.padding] = 0

    def __call__(self, ids: NDArray, *, segments: NDArray | None = None, mask: NDArray | None = None, noise: Noise | None = None,
                 run: Run = "inference") -> NDArray:
        return self.forward(ids, segments=segments, mask=mask, noise=noise, run=run)[0]

    def forward(self, ids: NDArray, *, segments: NDArray | None = None, mask: NDArray | None = None, noise: Noise | None = None,
                run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids, segments and mask (..., T) -> h (..., T, D); backward: dh -> grads (no backward in inference).

        segments are ids too, all 0 by default; mask is True where there is a token and not padding, everywhere by default.
        """
        at_least_rank("Bert", 1, ids=ids)
        booleans("Bert", mask=mask)
        same_shape("Bert", ids.shape, segments=segments, mask=mask)
        demand("Bert", segments is None or self.config.segments > 0, "no segments, of which this config has none", segments=segments)
        x, tokens_backward = self.tokens.forward(ids)                                                   # (..., T, D)
        if self.segments is not None:
            s, segments_backward = self.segments.forward(np.zeros_like(ids) if segments is None else segments)
            x = x + s
        x, positions_backward = self.positions.forward(x)
        x, norm_backward = self.norm.forward(x)
        x, dropout_backward = dropout(x, p=self.config.dropout, noise=at(noise, "dropout"))
        keys = None if mask is None else mask[..., None, None, :]                                       # for all heads and queries
        h, blocks_backward = self.blocks.forward(x, mask=keys, noise=at(noise, "blocks"), run=run)

        def backward(dh):
            dx, dblocks = blocks_backward(dh)
            dx, dnorm = norm_backward(dropout_backward(dx))
            dx, dpositions = positions_backward(dx)
            grads = {"tokens": tokens_backward(dx), "positions": dpositions, "norm": dnorm, "blocks": dblocks}
            return grads if self.segments is None else grads | {"segments": segments_backward(dx)}

        return h, None if run == "inference" else backward


class _BertHead(Module):
    """A Bert and what reads it: logits, and their cross-entropy. A subclass brings `_read`: h -> logits; dlogits -> dh, grads."""

    config: BertConfig
    bert: Bert
    _read: Callable

    def __call__(self, ids: NDArray, *, segments: NDArray | None = None, mask: NDArray | None = None, noise: Noise | None = None,
                 run: Run = "inference") -> NDArray:
        return self.forward(ids, segments=segments, mask=mask, noise=noise, run=run)[0]

    def forward(self, ids: NDArray, *, segments: NDArray | None = None, mask: NDArray | None = None, noise: Noise | None = None,
                run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """ids, segments and mask (..., T) as Bert takes them -> logits; backward: dlogits -> grads (no backward in inference)."""
        h, bert_backward = self.bert.forward(ids, segments=segments, mask=mask, noise=at(noise, "bert"), run=run)
        logits, read_backward = self._read(h, at(noise, "head"))

        def backward(dlogits):
            dh, grads = read_backward(dlogits)
            return add_grads({"bert": bert_backward(dh)}, grads)

        return logits, None if run == "inference" else backward

    def loss(self, ids: NDArray, targets: NDArray, *, segments: NDArray | None = None, mask: NDArray | None = None,
             normalizer: float | None = None, noise: Noise | None = None, run: Run = "keep") -> tuple[NDArray, Callable | None]:
        """−Σ log softmax(logits)[target] / normalizer, over the targets that are not -100; by default their mean.

        targets have the shape of the logits without its last axis. backward: dloss (), 1 by default -> grads (none in inference).
        """
        logits, logits_backward = self.forward(ids, segments=segments, mask=mask, noise=noise, run=run)
        loss, loss_backward = softmax_cross_entropy(logits, targets=targets, normalizer=normalizer)

        def backward(dloss=1.0):
            return logits_backward(loss_backward(np.asarray(dloss, loss.dtype)))

        return loss, None if run == "inference" else backward


class BertMaskedLM(_BertHead):
    """logits = norm(activation(transform(h))) · tokensᵀ + bias: what token stands, or stood before it was masked, at each place.

    The table of token embeddings is used twice, to read tokens and to predict them, so its gradient is a sum of two.

    Parameters
    ----------
    config : BertConfig
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values

    `forward`: ids (..., T) -> logits (..., T, V). For `loss`, targets are -100 wherever the loss should not look.

    Examples
    --------
    >>> model = BertMaskedLM(BertConfig(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2), rng=np.random.default_rng(0))
    >>> loss, backward = model.loss(np.array([[1, 6, 3]]), np.array([[-100, 2, -100]]))      # 6 is [MASK], 2 stood there
    >>> list(backward())
    ['bert', 'bias', 'transform', 'norm']
    """

    tied_table = "bert.tokens"

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        choice("BertMaskedLM", ACTIVATIONS, activation=config.activation)
        rng = rng or np.random.default_rng()
        self.config = config
        self.bert = Bert(config, dtype=dtype, rng=rng)
        self.transform = Linear(config.d_model, config.d_model, dtype=dtype, rng=rng)
        self.norm = LayerNorm(config.d_model, eps=config.norm_eps, dtype=dtype)
        self.bias = np.zeros(config.vocabulary, dtype)
        _start(self.transform, ("weight",), ("bias",), rng)

    def _read(self, h: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        t, transform_backward = self.transform.forward(h)
        t, activation_backward = ACTIVATIONS[self.config.activation](t)
        t, norm_backward = self.norm.forward(t)
        table = self.bert.tokens
        if table.trains("weight"):
            logits, head_backward = linear(t, table.weight, self.bias)
        else:
            logits, head_backward = frozen_linear(t, self.bias, weight=table.weight)

        def backward(dlogits):
            dt, *dtable, dbias = head_backward(dlogits)                 # of a frozen table there is none
            dt, dnorm = norm_backward(dt)
            dh, dtransform = transform_backward(activation_backward(dt))
            tied = {"bert": {"tokens": {"weight": dtable[0]}}} if dtable else {}
            return dh, self.grads(bias=dbias) | {"transform": dtransform, "norm": dnorm} | tied

        return logits, backward


class BertSequenceClassifier(_BertHead):
    """logits = head(dropout(tanh(pooler(h₀)))),  where h₀ stands at the first token, [CLS]: one class for a sequence.

    DistilBERT has a relu in the place of tanh.

    Parameters
    ----------
    config : BertConfig
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values

    `forward`: ids (..., T), T ≥ 1 -> logits (..., C).

    Examples
    --------
    >>> model = BertSequenceClassifier(BertConfig(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2, classes=3))
    >>> logits, backward = model.forward(np.array([[1, 6, 3], [1, 2, 2]]))
    >>> logits.shape, list(backward(np.ones_like(logits)))
    ((2, 3), ['bert', 'pooler', 'head'])
    """

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.bert = Bert(config, dtype=dtype, rng=rng)
        self.pooler = Linear(config.d_model, config.d_model, dtype=dtype, rng=rng)
        self.head = Linear(config.d_model, config.classes, dtype=dtype, rng=rng)
        _start(self, ("pooler.weight", "head.weight"), ("pooler.bias", "head.bias"), rng)

    def _read(self, h: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        demand("BertSequenceClassifier", h.shape[-2] > 0, "at least one token", hidden=h)
        shape = h.shape
        z, pooler_backward = self.pooler.forward(h[..., 0, :])                                          # (..., D)
        pooled, pooled_backward = _POOLERS[self.config.pooler](z)
        d, dropout_backward = dropout(pooled, p=self.config.dropout, noise=noise)
        logits, head_backward = self.head.forward(d)

        def backward(dlogits):
            dd, dhead = head_backward(dlogits)
            dz, dpooler = pooler_backward(pooled_backward(dropout_backward(dd)))
            dh = np.zeros(shape, dz.dtype)
            dh[..., 0, :] = dz                                                                          # no other token is read
            return dh, {"pooler": dpooler, "head": dhead}

        return logits, backward


class BertTokenClassifier(_BertHead):
    """logits = head(dropout(h)): a class for every token.

    Parameters
    ----------
    config : BertConfig
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values

    `forward`: ids (..., T) -> logits (..., T, C).

    Examples
    --------
    >>> model = BertTokenClassifier(BertConfig(vocabulary=7, max_length=8, d_model=4, n_layers=2, n_heads=2, classes=3))
    >>> logits, backward = model.forward(np.array([[1, 6, 3], [1, 2, 2]]))
    >>> logits.shape, list(backward(np.ones_like(logits)))
    ((2, 3, 3), ['bert', 'head'])
    """

    def __init__(self, config: BertConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        rng = rng or np.random.default_rng()
        self.config = config
        self.bert = Bert(config, dtype=dtype, rng=rng)
        self.head = Linear(config.d_model, config.classes, dtype=dtype, rng=rng)
        _start(self.head, ("weight",), ("bias",), rng)

    def _read(self, h: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        d, dropout_backward = dropout(h, p=self.config.dropout, noise=noise)
        logits, head_backward = self.head.forward(d)

        def backward(dlogits):
            dd, dhead = head_backward(dlogits)
            return dropout_backward(dd), {"head": dhead}

        return logits, backward


def _tanh(z: NDArray) -> tuple[NDArray, Callable]:
    y = np.tanh(z)
    return y, lambda dy: dy * (1 - y * y)                                                               # tanh' = 1 − tanh²


_POOLERS: dict[str, Callable] = {"tanh": _tanh, "relu": relu}


def _start(module: Module, normal: tuple[str, ...], zero: tuple[str, ...], rng: np.random.Generator) -> None:
    """Normals of deviation 0.02 for the parameters whose names end so, and zeros."""
    for name, array in module.parameters().items():
        if name.endswith(normal):
            array[...] = 0.02 * rng.standard_normal(array.shape)
        elif name.endswith(zero):
            array[...] = 0
