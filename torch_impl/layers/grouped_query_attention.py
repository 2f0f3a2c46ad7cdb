"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245): several query heads share one head of keys and values."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from byhand import checks
from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, in_range, positive, size
from byhand.noise import Noise, at
from torch_impl.attention.grouped_query import grouped_query_attention
from torch_impl.attention.sinks import sink_attention
from torch_impl.attention.sliding_window import sliding_window_attention
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._remembered import remembered
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import RMSNorm
from torch_impl.positions.rotary import rotary as turn


class GroupedQueryAttention(nn.Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_g, v_g),  g = ⌊h · K / H⌋.

    q = turn(norm(q_proj(x))) in H heads of width E, k = turn(norm(k_proj(x))) and v = v_proj(x) in K heads. x (..., T, D), bias and mask
    broadcastable to (..., H, T, T), rotary the pair cos, sin (..., T, R/2) -> y (..., T, D).
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int | None = None, *, head_width: int | None = None,
                 bias: bool | Literal["qkv"] = False, qk_norm: bool = False, eps: float = 1e-6,
                 window: tuple[int | None, int | None] | None = None, soft_cap: float | None = None, sinks: bool = False,
                 dropout: float = 0.0, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None):
        super().__init__()
        who = "GroupedQueryAttention"
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        size(who, d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
        demand(who, n_heads % n_kv_heads == 0, "n_heads to be a multiple of n_kv_heads", n_heads=n_heads, n_kv_heads=n_kv_heads)
        if head_width is None:
            demand(who, d_model % n_heads == 0, "d_model to be a multiple of n_heads, or a head_width", d_model=d_model, n_heads=n_heads)
            head_width = d_model // n_heads
        size(who, head_width=head_width)
        choice(who, (False, True, "qkv"), bias=bias)
        if window is not None:
            checks.window(who, window=window)
        if soft_cap is not None:
            positive(who, soft_cap=soft_cap)
        in_range(who, 0, 1, dropout=dropout)
        self.n_heads, self.n_kv_heads, self.head_width = n_heads, n_kv_heads, head_width
        self.eps, self.window, self.soft_cap, self.dropout = eps, window, soft_cap, dropout
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.q_proj = Linear(d_model, n_heads * head_width, bias=bool(bias), rng=rng, **here)
        self.k_proj = Linear(d_model, n_kv_heads * head_width, bias=bool(bias), rng=rng, **here)
        self.v_proj = Linear(d_model, n_kv_heads * head_width, bias=bool(bias), rng=rng, **here)
        self.o_proj = Linear(n_heads * head_width, d_model, bias=bias is True, rng=rng, **here)
        self.q_norm = RMSNorm(head_width, eps=eps, **here) if qk_norm else None
        self.k_norm = RMSNorm(head_width, eps=eps, **here) if qk_norm else None
        self.sinks = nn.Parameter(torch.zeros(n_heads, **here)) if sinks else None

    def forward(self, x: Tensor, bias: Tensor | None = None, *, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None,
                causal: bool = False, noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        """With a cache, x (B, T, D) are the newest of S tokens, and causal."""
        who = "GroupedQueryAttention"
        at_least_rank(who, 2, x=x)
        booleans(who, mask=mask)
        q, k, v = self.qkv(x, rotary=rotary, noise=noise)
        window = self.window
        if cache is not None:
            k, v, mask, causal = remembered(cache, k, v, mask, None if window is None else window[0])
            window = window if causal else None  # what is seen lies in the window already
        broadcastable(who, (*q.shape[:-1], k.shape[-2]), bias=bias, mask=mask)
        heads = self._attend(q, k, v, bias, mask=mask, causal=causal, window=window, noise=noise)
        return self.merge(heads, noise=noise)

    def qkv(self, x: Tensor, *, rotary: tuple[Tensor, Tensor] | None = None,
            noise: Noise | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., T, D) -> q (..., H, T, E), k and v (..., K, T, E), normalised and turned."""
        q = self.q_proj(x, noise=at(noise, "q_proj")).unflatten(-1, (-1, self.head_width))  # (..., T, H, E)
        k = self.k_proj(x, noise=at(noise, "k_proj")).unflatten(-1, (-1, self.head_width))  # (..., T, K, E)
        v = self.v_proj(x, noise=at(noise, "v_proj")).unflatten(-1, (-1, self.head_width))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(-2, -3), k.transpose(-2, -3), v.transpose(-2, -3)  # (..., H or K, T, E)
        if rotary is not None:
            at_least_rank("GroupedQueryAttention", 2, cos=rotary[0], sin=rotary[1])
            cos, sin = (table[..., None, :, :] for table in rotary)
            q, k = turn(q, cos=cos, sin=sin), turn(k, cos=cos, sin=sin)
        return q, k, v

    def merge(self, heads: Tensor, *, noise: Noise | None = None) -> Tensor:
        """heads (..., H, T, E) -> y (..., T, D), o_proj of the heads side by side."""
        return self.o_proj(heads.transpose(-2, -3).flatten(-2), noise=at(noise, "o_proj"))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, mask: Tensor | None, causal: bool,
                window: tuple[int | None, int | None] | None, noise: Noise | None) -> Tensor:
        """q (..., H, T, E), k and v (..., K, S, E) -> heads (..., H, T, E)."""
        drops = noise is not None and self.dropout > 0
        if window is not None and bias is None and mask is None and self.sinks is None and not drops:
            group = q.shape[-3] // k.shape[-3]
            k, v = k.repeat_interleave(group, -3), v.repeat_interleave(group, -3)
            return sliding_window_attention(q, k, v, window=window, causal=causal, soft_cap=self.soft_cap)
        if window is not None:  # beside anything else, the window is a mask
            band = _band(q.shape[-2], k.shape[-2], *window, q.device)
            mask = band if mask is None else mask & band
        options: dict[str, Any] = dict(mask=mask, causal=causal, soft_cap=self.soft_cap, dropout=self.dropout, noise=noise)
        if self.sinks is None:
            return grouped_query_attention(q, k, v, bias, **options)
        return sink_attention(q, k, v, self.sinks, bias, **options)


def _band(t: int, s: int, left: int | None, right: int | None, device: torch.device) -> Tensor:
    """(T, S) booleans: key s lies in the window of query t, i − left ≤ s ≤ i + right, where i = t + S − T; T ≤ S."""
    left, right = (s if reach is None else min(reach, s) for reach in (left, right))
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t + right).triu(s - t - left)
