"""Causal self-attention in which positions and the choice of keys are options: what the architecture experiments compare."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.configs.decoder import DROPPING, attention_options
from byhand.noise import Noise, at
from torch_impl.attention.linear_attention import linear_attention
from torch_impl.attention.scaled_dot_product import scaled_dot_product
from torch_impl.attention.sliding_window import sliding_window_attention
from torch_impl.attention.strided import strided_attention
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._remembered import bias_by_distance, remembered
from torch_impl.layers.linear import Linear
from torch_impl.positions.alibi import alibi_bias
from torch_impl.positions.rotary import rotary, rotary_frequencies, rotary_table
from torch_impl.positions.t5 import t5_bias


class DecoderAttention(nn.Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(turn(q_h), turn(k_h), v_h, bias),  q, k, v = three projections of x.

    x (..., T, D) -> y (..., T, D). "rotary" turns q and k, "alibi" and "relative" make the bias; relative (buckets, H) starts at 0.
    """

    def __init__(self, d_model: int, n_heads: int, *, attention: str = "full", positions: str = "none", window: int | None = None,
                 stride: int | None = None, local: int | None = None, rope_base: float = 10000.0, buckets: int = 32,
                 max_distance: int = 128, bias: bool = False, dropout: float = 0.0, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        who = "DecoderAttention"
        size(who, d_model=d_model, n_heads=n_heads, buckets=buckets)
        local = attention_options(
            who, d_model=d_model, n_heads=n_heads, attention=attention, positions=positions, window=window, stride=stride, local=local
        )
        in_range(who, 0, 1, dropout=dropout)
        demand(who, attention in DROPPING or dropout == 0, f"attention from {DROPPING} with dropout", attention=attention, dropout=dropout)
        self.n_heads, self.attention, self.positions, self.dropout = n_heads, attention, positions, dropout
        self.window, self.stride, self.local = window, stride, local
        self.rope_base, self.max_distance = rope_base, max_distance
        made: dict[str, Any] = dict(bias=bias, dtype=dtype, device=device, rng=rng)
        self.q_proj = Linear(d_model, d_model, **made)
        self.k_proj = Linear(d_model, d_model, **made)
        self.v_proj = Linear(d_model, d_model, **made)
        self.o_proj = Linear(d_model, d_model, **made)
        relative = nn.Parameter(torch.zeros(buckets, n_heads, dtype=dtype, device=device)) if positions == "relative" else None
        self.register_parameter("relative", relative)

    def forward(self, x: Tensor, *, noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        """With a cache, x (B, T, D) are the newest tokens."""
        at_least_rank("DecoderAttention", 2, x=x)
        q = self._split(self.q_proj(x, noise=at(noise, "q_proj")))
        k = self._split(self.k_proj(x, noise=at(noise, "k_proj")))
        v = self._split(self.v_proj(x, noise=at(noise, "v_proj")))
        if self.positions == "rotary":
            frequencies = rotary_frequencies(q.shape[-1], base=self.rope_base)
            positions = torch.arange(x.shape[-2], device=x.device) if cache is None else cache.places.positions[:, None]
            cos, sin = rotary_table(positions, frequencies=frequencies, dtype=x.dtype)
            q, k = rotary(q, cos=cos, sin=sin), rotary(k, cos=cos, sin=sin)
        if cache is not None:
            heads = self._remember(q, k, v, cache, noise)
        else:
            heads = self._attend(q, k, v, self._bias(x, x.shape[-2], x.shape[-2]), noise)  # (..., H, T, D/H)
        return self.o_proj(heads.transpose(-2, -3).flatten(-2), noise=at(noise, "o_proj"))

    def _remember(self, q: Tensor, k: Tensor, v: Tensor, cache: LayerCache, noise: Noise | None) -> Tensor:
        """The heads (B, H, T, D/H) of the newest tokens, which also see the keys and values that are remembered."""
        key, value, mask, alike = remembered(cache, k, v, None, self.window - 1 if self.attention == "window" else None)
        t, s = q.shape[-2], key.shape[-2]
        if alike:
            return self._attend(q, key, value, self._bias(q, t, s), noise)
        if self.attention == "linear":  # in whatever order keys come: first those from before the call; what is no token adds φ(−∞) = 0
            starts, real = cache.places.starts.to(q.device), cache.places.real
            before = torch.arange(int(cache.places.starts.max()), device=q.device)
            told = torch.ones(len(k), t, dtype=torch.bool, device=q.device) if real is None else real
            there = torch.cat([before < starts[:, None], told], 1)[:, None, :, None]  # (B, 1, S, 1)
            k, v = torch.cat([key[:, :, before], k], 2), torch.cat([value[:, :, before], v], 2)
            return linear_attention(q, k.masked_fill(~there, -torch.inf), v, causal=True)
        back = cache.places.positions[:, :, None] - torch.arange(s, device=q.device)  # (B, T, S); only a window's first keys may be gone
        if self.attention == "strided":
            mask = mask & ((back < self.local) | (back % self.stride == 0))[:, None]
        bias = self._bias(q, 1, s)
        bias = None if bias is None else bias_by_distance(bias, back)
        return scaled_dot_product(q, key, value, bias, mask=mask, dropout=self.dropout, noise=noise)

    def _bias(self, x: Tensor, t: int, s: int) -> Tensor | None:
        if self.positions == "relative":
            return t5_bias(self.relative, queries=t, keys=s, bidirectional=False, max_distance=self.max_distance)
        return alibi_bias(self.n_heads, queries=t, keys=s, dtype=x.dtype, device=x.device) if self.positions == "alibi" else None

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, noise: Noise | None) -> Tensor:
        if self.attention == "full":
            return scaled_dot_product(q, k, v, bias, causal=True, dropout=self.dropout, noise=noise)
        if self.attention == "window":
            return sliding_window_attention(q, k, v, window=(self.window - 1, 0), dropout=self.dropout, noise=noise)
        if self.attention == "strided":
            return strided_attention(q, k, v, stride=self.stride, local=self.local - 1, causal=True)
        return linear_attention(q, k, v, causal=True)

    def _split(self, x: Tensor) -> Tensor:
        """(..., T, D) -> (..., H, T, D/H)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)
