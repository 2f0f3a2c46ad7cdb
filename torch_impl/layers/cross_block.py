"""The block of a decoder that also reads another sequence (Vaswani et al. 2017, arXiv:1706.03762, section 3.1)."""

from typing import Any, Literal

import torch
from torch import Tensor

from byhand.checks import choice
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.decode.context import ContextStore
from torch_impl.layers._routed import Routes, Routing, telling
from torch_impl.layers.block import Block, Order, _make_norm, _start_deepnorm
from torch_impl.layers.multi_head_attention import MultiHeadAttention
from torch_impl.ops.dropout import dropout as drop


class CrossBlock(Block):
    """y = mid₂ + mlp(norm2(mid₂)),  mid₂ = mid₁ + cross_attn(norm_cross(mid₁), context),  mid₁ = x + attn(norm1(x))      (order "pre")
    y = norm2(mid₂ + mlp(mid₂)),  mid₂ = norm_cross(mid₁ + cross_attn(mid₁, context)),  mid₁ = norm1(x + attn(x))      ("post")

    x (..., T, D), context (..., S, C), bias and mask broadcastable to (..., H, T, T), context_mask to (..., H, T, S) -> y (..., T, D).
    Options as in Block.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, d_context: int | None = None, norm: Literal["layer", "rms"] = "layer",
                 order: Order = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0, head_width: int | None = None,
                 scale: float | None = None, alpha: float = 1.0, beta: float | None = None,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        choice("CrossBlock", ("pre", "post", "sandwich", "none"), order=order)
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        super().__init__(
            d_model, n_heads, d_hidden, norm=norm, order=order, activation=activation, bias=bias, eps=eps, dropout=dropout,
            attention_dropout=attention_dropout, hidden_dropout=hidden_dropout, head_width=head_width, scale=scale, alpha=alpha, beta=beta,
            rng=rng, **here,
        )
        self.norm_cross = None if order == "none" else _make_norm(norm, d_model, eps, bias, **here)
        self.cross_attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, d_context=d_context,
                                             head_width=head_width, scale=scale, rng=rng, **here)
        self.norm_cross_after = _make_norm(norm, d_model, eps, bias, **here) if order == "sandwich" else None
        if beta is not None:
            _start_deepnorm(self.cross_attn, beta, rng)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None = None, *, mask: Tensor | None = None,
                context_mask: Tensor | None = None, causal: bool = False, noise: Noise | None = None,
                cache: tuple[LayerCache, ContextStore] | None = None) -> Tensor:
        return self.routed(x, context, bias, mask=mask, context_mask=context_mask, causal=causal, noise=noise, cache=cache)[0]

    def routed(self, x: Tensor, context: Tensor, bias: Tensor | None = None, *, mask: Tensor | None = None,
               context_mask: Tensor | None = None, causal: bool = False, real: Tensor | None = None,
               noise: Noise | None = None, cache: tuple[LayerCache, ContextStore] | None = None) -> tuple[Tensor, Routes]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding."""
        found: list[Routing] = []
        own, other = (None, None) if cache is None else cache

        def attend(h: Tensor) -> Tensor:
            h = self.attn(h, None, bias, mask=mask, causal=causal, noise=at(noise, "attn"), cache=own)
            return drop(h, p=self.dropout, noise=at(noise, "dropout1"))

        def cross(h: Tensor) -> Tensor:
            h = self.cross_attn(h, context, mask=context_mask, noise=at(noise, "cross_attn"), cache=other)
            return drop(h, p=self.dropout, noise=at(noise, "dropout_cross"))

        def feed(h: Tensor) -> Tensor:
            h = telling(self.mlp, found, h, real=real, noise=at(noise, "mlp"))
            return drop(h, p=self.dropout, noise=at(noise, "dropout2"))

        mid1 = self._add(x, attend, self.norm1, self.norm1_after)
        mid2 = self._add(mid1, cross, self.norm_cross, self.norm_cross_after)
        y = self._add(mid2, feed, self.norm2, self.norm2_after)
        return y, tuple(found)
