"""Prefix tuning (Li & Liang 2021, arXiv:2101.00190): every attention layer reads a few learned keys and values before the text."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, broadcastable, fail, matching, size
from byhand.noise import Noise
from numpy_impl.decode.cache import LayerCache
from numpy_impl.decode.context import ContextStore
from numpy_impl.finetune._projections import OnFrozen, measure, wrap
from numpy_impl.finetune.prefix import Prefix
from numpy_impl.finetune.prefix_attention import prefix_attention
from numpy_impl.layers._remembered import remembered
from numpy_impl.layers.grouped_query_attention import GroupedQueryAttention, _band
from numpy_impl.layers.module import Module
from numpy_impl.layers.multi_head_attention import MultiHeadAttention


class PrefixGroupedQueryAttention(OnFrozen):
    """GroupedQueryAttention whose queries also see N learned keys and values, wherever they stand and whatever masks hide.

    The prefix is used as it is learned: rotary does not turn it, norms of queries and keys leave it alone, and a window does not end before
    it. Real tokens keep the positions 0 … T−1. peft hands the prefix over as a cache of N past tokens, so that its texts begin at position
    N. Rotary scores depend on differences of positions alone: among real tokens nothing changes by that, and peft's prefix key p
    is ours turned forward by N, p = turn_N(ours), as (turn_{N+t} q) · p = (turn_t q) · (turn_{−N} p).

    Parameters
    ----------
    base : GroupedQueryAttention   what it stands in for; it is frozen
    n : int                        N, entries of the prefix; with 0 the layer is its base
    hidden : int                   width of the MLP through which the prefix is learned; None: it is learned itself
    rng                            np.random.Generator of the prefix's initial values

    `unfreeze` thaws the base only for a pattern that names it, such as "*.base.*.bias".

    Examples
    --------
    >>> attn = PrefixGroupedQueryAttention(GroupedQueryAttention(8, 4, 2, rng=np.random.default_rng(0)), 3)
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, grads["prefix"]["rows"].shape, list(attn.parameters())
    ((3, 5, 8), (3, 8), ['prefix.rows'])
    """

    def __init__(self, base: GroupedQueryAttention, n: int, *, hidden: int | None = None, rng: np.random.Generator | None = None):
        if not isinstance(base, GroupedQueryAttention):
            fail("PrefixGroupedQueryAttention", "a GroupedQueryAttention as its base", f"a {type(base).__name__}")
        super().__init__(base)
        *_, dtype = measure(base.k_proj)
        self.prefix = Prefix(n, base.n_kv_heads, base.head_width, hidden=hidden, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, bias: NDArray | None = None, *, rotary: tuple[NDArray, NDArray] | None = None,
                mask: NDArray | None = None, causal: bool = False, noise: Noise | None = None,
                cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, dbias (None without bias), grads. The options are those of the base."""
        who, base = "PrefixGroupedQueryAttention", self.base
        at_least_rank(who, 2, x=x)
        booleans(who, mask=mask)
        (q, k, v), qkv_backward = base.qkv(x, rotary=rotary, noise=noise)
        window = base.window
        if cache is not None:
            k, v, mask, causal = remembered(cache, k, v, mask, None if window is None else window[0])
            window = window if causal else None                         # what is seen lies in the window already
        broadcastable(who, (*q.shape[:-1], k.shape[-2]), bias=bias, mask=mask)
        if window is not None:                                          # a window hides text; of the prefix it hides nothing
            band = _band(x.shape[-2], k.shape[-2], *window)
            mask = band if mask is None else mask & band
        prefix, prefix_backward = self.prefix.forward()
        heads, heads_backward = prefix_attention(
            q, k, v, *prefix, bias, base.sinks, mask=mask, causal=causal, soft_cap=base.soft_cap, dropout=base.dropout, noise=noise
        )                                                               # (..., H, T, E)
        y, merge_backward = base.merge(heads, noise=noise)

        def backward(dy):
            dheads, do_proj = merge_backward(dy)
            dq, dk, dv, *dprefix, dbias, dsinks = heads_backward(dheads)
            dx, dbase = qkv_backward(dq, dk, dv)
            return dx, dbias, {"base": dbase | do_proj | base.grads(sinks=dsinks), "prefix": prefix_backward(*dprefix)}

        return y, backward if cache is None else None


class PrefixMultiHeadAttention(OnFrozen):
    """MultiHeadAttention whose queries also see N learned keys and values, in front of the sequence or of the context.

    Parameters
    ----------
    base : MultiHeadAttention   what it stands in for; it is frozen
    n : int                     N, entries of the prefix; with 0 the layer is its base
    hidden : int                width of the MLP through which the prefix is learned; None: it is learned itself
    rng                         np.random.Generator of the prefix's initial values

    No mask hides the prefix. Positions that a model adds to its embeddings stay those of the text, 0 … T−1; in peft they begin at N.

    Examples
    --------
    >>> attn = PrefixMultiHeadAttention(MultiHeadAttention(8, 2, rng=np.random.default_rng(0)), 3)
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dcontext, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, grads["prefix"]["rows"].shape, list(attn.parameters())
    ((3, 5, 8), (3, 16), ['prefix.rows'])
    """

    def __init__(self, base: MultiHeadAttention, n: int, *, hidden: int | None = None, rng: np.random.Generator | None = None):
        if not isinstance(base, MultiHeadAttention):
            fail("PrefixMultiHeadAttention", "a MultiHeadAttention as its base", f"a {type(base).__name__}")
        super().__init__(base)
        *_, dtype = measure(base.k_proj)
        self.prefix = Prefix(n, base.n_heads, base.head_width, hidden=hidden, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, context: NDArray | None = None, bias: NDArray | None = None, *, mask: NDArray | None = None,
                causal: bool = False, noise: Noise | None = None,
                cache: LayerCache | ContextStore | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D), context (..., S, C) or None -> y (..., T, D); backward: dy -> dx, dcontext and dbias (or None), grads. The options
        are those of the base."""
        base = self.base
        at_least_rank("PrefixMultiHeadAttention", 2, x=x, context=context)
        if isinstance(cache, ContextStore):
            q, k, v = base.with_context(x, context, cache)
        else:
            (q, k, v), qkv_backward = base.qkv(x, context, noise=noise)
            if cache is not None:
                k, v, mask, causal = remembered(cache, k, v, mask)
        prefix, prefix_backward = self.prefix.forward()
        heads, heads_backward = prefix_attention(
            q, k, v, *prefix, bias, mask=mask, causal=causal, scale=base.scale, dropout=base.dropout, noise=noise
        )                                                               # (..., H, T, E)
        y, merge_backward = base.merge(heads, noise=noise)

        def backward(dy):
            dheads, do_proj = merge_backward(dy)
            dq, dk, dv, *dprefix, dbias, _ = heads_backward(dheads)
            dx, dcontext, dbase = qkv_backward(dq, dk, dv)
            return dx, dcontext, dbias, {"base": dbase | do_proj, "prefix": prefix_backward(*dprefix)}

        return y, backward if cache is None else None


def apply_prefix(model: Module, *, n: int, targets: Sequence[str] = ("*",), hidden: int | None = None,
                 rng: np.random.Generator | None = None) -> list[str]:
    """Freeze the model, and give every attention layer whose name matches a prefix of its own.

    Parameters
    ----------
    model : Module   changed in place; its layers of attention are GroupedQueryAttention or MultiHeadAttention
    n : int          N, entries of each prefix
    targets          names or shell patterns of attention layers: "attn", "blocks.0.attn"; by default all of them
    hidden : int     width of the MLPs through which the prefixes are learned, which `materialize_prefix` drops; None: without them.
                     peft's prefix_projection has one MLP whose embedding and first layer serve all layers; here each has its own

    rng is that of the prefixes' initial values.

    Returns
    -------
    the dotted names of the attention layers, in the model's order

    Raises
    ------
    ValueError   if the model has no such layer without a prefix, a pattern matches none (near names are suggested), or a size is out of
                 range; then nothing is changed

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=2))
    >>> apply_prefix(model, n=3)
    ['blocks.0.attn', 'blocks.1.attn']
    >>> {name: array.shape for name, array in model.parameters().items()}
    {'blocks.0.attn.prefix.rows': (3, 16), 'blocks.1.attn.prefix.rows': (3, 16)}
    """
    who = "apply_prefix"
    size(who, at_least=0, n=n)
    if hidden is not None:
        size(who, hidden=hidden)
    every = {name: module for name, module in model.modules() if type(module) in _WITH_PREFIX}
    layers = {name: module for name, module in every.items() if name.rpartition(".")[2] != "base"}        # a base has its prefix already
    if not layers:
        fail(who, "a model with GroupedQueryAttention or MultiHeadAttention that has no prefix yet", f"a {type(model).__name__} without")
    names = matching(who, layers, of="attention layers", targets=targets)
    if not names:
        fail(who, "a target", f"targets={targets!r}")
    wrap(model, names, lambda _, base: _WITH_PREFIX[type(base)](base, n, hidden=hidden, rng=rng))
    return names


def materialize_prefix(model: Module) -> list[str]:
    """Drop the MLPs of all prefixes in a model, which have done their work when training ends: what they give is kept in their place.

    Returns
    -------
    the dotted names of the prefixes

    Raises
    ------
    ValueError   if no prefix in the model has an MLP
    """
    prefixes = {name: module for name, module in model.modules() if isinstance(module, Prefix) and module.rows is None}
    if not prefixes:
        fail("materialize_prefix", "a model with prefixes that have an MLP", f"a {type(model).__name__} without")
    for prefix in prefixes.values():
        prefix.materialize()
    return list(prefixes)


_WITH_PREFIX = {GroupedQueryAttention: PrefixGroupedQueryAttention, MultiHeadAttention: PrefixMultiHeadAttention}
