"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2), over the sequence itself or over another one."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise, at
from torch_impl.attention.scaled_dot_product import scaled_dot_product
from torch_impl.decode.cache import LayerCache
from torch_impl.decode.context import ContextStore
from torch_impl.layers._remembered import remembered
from torch_impl.layers.linear import Linear


class MultiHeadAttention(nn.Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_h, v_h),  q = q_proj(x), k = k_proj(c), v = v_proj(c).

    x (..., T, D), context c (..., S, C) or x itself, bias and mask broadcastable to (..., H, T, S) -> y (..., T, D).
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0, d_context: int | None = None,
                 head_width: int | None = None, scale: float | None = None, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("MultiHeadAttention", d_model=d_model, n_heads=n_heads)
        if head_width is None:
            demand("MultiHeadAttention", d_model % n_heads == 0, "d_model to be a multiple of n_heads, or a head_width",
                   d_model=d_model, n_heads=n_heads)
            head_width = d_model // n_heads
        size("MultiHeadAttention", head_width=head_width)
        in_range("MultiHeadAttention", 0, 1, dropout=dropout)
        d_context, width = d_model if d_context is None else d_context, n_heads * head_width
        self.n_heads, self.head_width, self.dropout, self.scale = n_heads, head_width, dropout, scale
        made: dict[str, Any] = dict(bias=bias, dtype=dtype, device=device, rng=rng)
        self.q_proj = Linear(d_model, width, **made)
        self.k_proj = Linear(d_context, width, **made)
        self.v_proj = Linear(d_context, width, **made)
        self.o_proj = Linear(width, d_model, **made)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None, *, mask: Tensor | None = None,
                causal: bool = False, noise: Noise | None = None, cache: LayerCache | ContextStore | None = None) -> Tensor:
        """With a cache, x (B, T, D) are the newest of S tokens, and causal; a ContextStore keeps keys and values of the first call."""
        at_least_rank("MultiHeadAttention", 2, x=x, context=context)
        if isinstance(cache, ContextStore):
            q, k, v = self.with_context(x, context, cache)
        else:
            q, k, v = self.qkv(x, context, noise=noise)
            if cache is not None:
                k, v, mask, causal = remembered(cache, k, v, mask)
        heads = scaled_dot_product(
            q, k, v, bias, mask=mask, causal=causal, scale=self.scale, dropout=self.dropout, noise=noise
        )  # (..., H, T, E)
        return self.merge(heads, noise=noise)

    def qkv(self, x: Tensor, context: Tensor | None = None, *, noise: Noise | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., T, D), context (..., S, C) or None -> q (..., H, T, E), k and v (..., H, S, E)."""
        source = x if context is None else context
        q, k = self.q_proj(x, noise=at(noise, "q_proj")), self.k_proj(source, noise=at(noise, "k_proj"))
        return self._split(q), self._split(k), self._split(self.v_proj(source, noise=at(noise, "v_proj")))

    def with_context(self, x: Tensor, context: Tensor | None, held: ContextStore) -> tuple[Tensor, Tensor, Tensor]:
        """q of x, k and v of the context: made once, and kept."""
        if held.key is None:
            held.hold(self._split(self.k_proj(context)), self._split(self.v_proj(context)))
        return self._split(self.q_proj(x)), held.key, held.value

    def merge(self, heads: Tensor, *, noise: Noise | None = None) -> Tensor:
        """heads (..., H, T, E) -> y (..., T, D), o_proj of the heads side by side."""
        return self.o_proj(heads.transpose(-2, -3).flatten(-2), noise=at(noise, "o_proj"))

    def _split(self, x: Tensor) -> Tensor:
        """(..., T, H · E) -> (..., H, T, E)."""
        return x.unflatten(-1, (self.n_heads, self.head_width)).transpose(-2, -3)
