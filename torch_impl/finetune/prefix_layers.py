"""Prefix tuning (Li & Liang 2021, arXiv:2101.00190): every attention layer reads a few learned keys and values before the text."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, booleans, broadcastable, fail, matching, size
from byhand.noise import Noise
from torch_impl.decode.cache import LayerCache
from torch_impl.decode.context import ContextStore
from torch_impl.finetune._projections import measure, wrap
from torch_impl.finetune.prefix import Prefix
from torch_impl.finetune.prefix_attention import prefix_attention
from torch_impl.layers._remembered import remembered
from torch_impl.layers.grouped_query_attention import GroupedQueryAttention, _band
from torch_impl.layers.multi_head_attention import MultiHeadAttention


class PrefixGroupedQueryAttention(nn.Module):
    """GroupedQueryAttention whose queries also see N learned keys and values, wherever they stand and whatever masks hide.

    Rotary does not turn the prefix, and real tokens keep the positions 0 … T−1. base is frozen; hidden is the width of the MLP through
    which the prefix is learned, None for none.
    """

    def __init__(self, base: GroupedQueryAttention, n: int, *, hidden: int | None = None, rng: torch.Generator | None = None):
        super().__init__()
        if not isinstance(base, GroupedQueryAttention):
            fail("PrefixGroupedQueryAttention", "a GroupedQueryAttention as its base", f"a {type(base).__name__}")
        self.base = base.requires_grad_(False)
        *_, here = measure(base.k_proj)
        self.prefix = Prefix(n, base.n_kv_heads, base.head_width, hidden=hidden, rng=rng, **here)

    def forward(self, x: Tensor, bias: Tensor | None = None, *, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None,
                causal: bool = False, noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        who, base = "PrefixGroupedQueryAttention", self.base
        at_least_rank(who, 2, x=x)
        booleans(who, mask=mask)
        q, k, v = base.qkv(x, rotary=rotary, noise=noise)
        window = base.window
        if cache is not None:
            k, v, mask, causal = remembered(cache, k, v, mask, None if window is None else window[0])
            window = window if causal else None  # what is seen lies in the window already
        broadcastable(who, (*q.shape[:-1], k.shape[-2]), bias=bias, mask=mask)
        if window is not None:  # a window hides text; of the prefix it hides nothing
            band = _band(x.shape[-2], k.shape[-2], *window, q.device)
            mask = band if mask is None else mask & band
        key, value = self.prefix()
        heads = prefix_attention(
            q, k, v, key, value, bias, base.sinks, mask=mask, causal=causal, soft_cap=base.soft_cap, dropout=base.dropout, noise=noise
        )  # (..., H, T, E)
        return base.merge(heads, noise=noise)


class PrefixMultiHeadAttention(nn.Module):
    """MultiHeadAttention whose queries also see N learned keys and values, in front of the sequence or of the context.

    base is frozen; hidden is the width of the MLP through which the prefix is learned, None for none.
    """

    def __init__(self, base: MultiHeadAttention, n: int, *, hidden: int | None = None, rng: torch.Generator | None = None):
        super().__init__()
        if not isinstance(base, MultiHeadAttention):
            fail("PrefixMultiHeadAttention", "a MultiHeadAttention as its base", f"a {type(base).__name__}")
        self.base = base.requires_grad_(False)
        *_, here = measure(base.k_proj)
        self.prefix = Prefix(n, base.n_heads, base.head_width, hidden=hidden, rng=rng, **here)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None, *, mask: Tensor | None = None,
                causal: bool = False, noise: Noise | None = None, cache: LayerCache | ContextStore | None = None) -> Tensor:
        base = self.base
        at_least_rank("PrefixMultiHeadAttention", 2, x=x, context=context)
        if isinstance(cache, ContextStore):
            q, k, v = base.with_context(x, context, cache)
        else:
            q, k, v = base.qkv(x, context, noise=noise)
            if cache is not None:
                k, v, mask, causal = remembered(cache, k, v, mask)
        key, value = self.prefix()
        heads = prefix_attention(
            q, k, v, key, value, bias, mask=mask, causal=causal, scale=base.scale, dropout=base.dropout, noise=noise
        )  # (..., H, T, E)
        return base.merge(heads, noise=noise)


def apply_prefix(model: nn.Module, *, n: int, targets: Sequence[str] = ("*",), hidden: int | None = None,
                 rng: torch.Generator | None = None) -> list[str]:
    """Freeze the model, give every attention layer whose name or pattern is in `targets` a prefix of n entries, and return their names.

    hidden is the width of the MLPs through which the prefixes are learned, which `materialize_prefix` drops; None: without them.
    """
    who = "apply_prefix"
    size(who, at_least=0, n=n)
    if hidden is not None:
        size(who, hidden=hidden)
    every = {name: module for name, module in model.named_modules() if type(module) in _WITH_PREFIX}
    layers = {name: module for name, module in every.items() if name.rpartition(".")[2] != "base"}        # a base has its prefix already
    if not layers:
        fail(who, "a model with GroupedQueryAttention or MultiHeadAttention that has no prefix yet", f"a {type(model).__name__} without")
    names = matching(who, layers, of="attention layers", targets=targets)
    if not names:
        fail(who, "a target", f"targets={targets!r}")
    wrap(model, names, lambda _, base: _WITH_PREFIX[type(base)](base, n, hidden=hidden, rng=rng))
    return names


def materialize_prefix(model: nn.Module) -> list[str]:
    """Drop the MLPs of all prefixes in a model, keep what they give in their place, and return the names of the prefixes."""
    prefixes = {name: module for name, module in model.named_modules() if isinstance(module, Prefix) and module.rows is None}
    if not prefixes:
        fail("materialize_prefix", "a model with prefixes that have an MLP", f"a {type(model).__name__} without")
    for prefix in prefixes.values():
        prefix.materialize()
    return list(prefixes)


_WITH_PREFIX: dict[type, Callable[..., nn.Module]] = {
    GroupedQueryAttention: PrefixGroupedQueryAttention, MultiHeadAttention: PrefixMultiHeadAttention,
}
