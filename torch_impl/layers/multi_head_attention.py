"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2), over the sequence itself or over another one."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise
from torch_impl.attention.scaled_dot_product import scaled_dot_product
from torch_impl.layers.linear import Linear


class MultiHeadAttention(nn.Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_h, v_h),  q = q_proj(x), k = k_proj(c), v = v_proj(c).

    x (..., T, D), context c (..., S, C) or x itself, mask broadcastable to (..., H, T, S) -> y (..., T, D).
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0, d_context: int | None = None,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("MultiHeadAttention", d_model=d_model, n_heads=n_heads)
        demand("MultiHeadAttention", d_model % n_heads == 0, "d_model to be a multiple of n_heads", d_model=d_model, n_heads=n_heads)
        in_range("MultiHeadAttention", 0, 1, dropout=dropout)
        d_context = d_model if d_context is None else d_context
        self.n_heads, self.dropout = n_heads, dropout
        made: dict[str, Any] = dict(bias=bias, dtype=dtype, device=device, rng=rng)
        self.q_proj = Linear(d_model, d_model, **made)
        self.k_proj = Linear(d_context, d_model, **made)
        self.v_proj = Linear(d_context, d_model, **made)
        self.o_proj = Linear(d_model, d_model, **made)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False,
                noise: Noise | None = None) -> Tensor:
        at_least_rank("MultiHeadAttention", 2, x=x, context=context)
        source = x if context is None else context
        q, k, v = self._split(self.q_proj(x)), self._split(self.k_proj(source)), self._split(self.v_proj(source))
        heads = scaled_dot_product(q, k, v, mask=mask, causal=causal, dropout=self.dropout, noise=noise)  # (..., H, T, D/H)
        return self.o_proj(heads.transpose(-2, -3).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        """(..., T, D) -> (..., H, T, D/H)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)
