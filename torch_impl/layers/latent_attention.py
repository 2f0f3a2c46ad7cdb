"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, section 2.1): keys and values made from a short latent."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise, at
from torch_impl.attention.latent import latent_attention
from torch_impl.attention.scaled_dot_product import scaled_dot_product
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._remembered import remembered
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import RMSNorm
from torch_impl.positions.rotary import rotary as turn


class MultiHeadLatentAttention(nn.Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(qᶜ_h ‖ turn(qᴿ_h), kᶜ_h ‖ turn(kᴿ), v_h).

    [kᶜ_h, v_h] = kv_b_proj(c) come from one latent c of kv_rank numbers, kᴿ straight from x and for all heads. x (..., T, D), mask
    broadcastable to (..., H, T, T), rotary the pair cos, sin (..., T, R/2) -> y (..., T, D).
    """

    def __init__(self, d_model: int, n_heads: int, *, kv_rank: int, head_width: int, rope_width: int, value_width: int | None = None,
                 q_rank: int | None = None, bias: bool = False, absorb: bool = False, interleaved: bool = False, eps: float = 1e-6,
                 scale: float | None = None, dropout: float = 0.0, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        who = "MultiHeadLatentAttention"
        value_width = head_width if value_width is None else value_width
        size(who, d_model=d_model, n_heads=n_heads, kv_rank=kv_rank, head_width=head_width, value_width=value_width)
        size(who, at_least=2, rope_width=rope_width)
        demand(who, rope_width % 2 == 0, "an even rope_width", rope_width=rope_width)
        in_range(who, 0, 1, dropout=dropout)
        self.n_heads, self.kv_rank, self.head_width = n_heads, kv_rank, head_width
        self.absorb, self.interleaved, self.dropout = absorb, interleaved, dropout
        self.scale = 1 / math.sqrt(head_width + rope_width) if scale is None else scale
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        d_query = n_heads * (head_width + rope_width)
        self.q_proj = self.q_a_proj = self.q_a_norm = self.q_b_proj = None
        if q_rank is None:
            self.q_proj = Linear(d_model, d_query, bias=False, rng=rng, **here)
        else:
            self.q_a_proj = Linear(d_model, q_rank, bias=bias, rng=rng, **here)
            self.q_a_norm = RMSNorm(q_rank, eps=eps, **here)
            self.q_b_proj = Linear(q_rank, d_query, bias=False, rng=rng, **here)
        self.kv_a_proj = Linear(d_model, kv_rank + rope_width, bias=bias, rng=rng, **here)
        self.kv_a_norm = RMSNorm(kv_rank, eps=eps, **here)
        self.kv_b_proj = Linear(kv_rank, n_heads * (head_width + value_width), bias=False, rng=rng, **here)
        self.o_proj = Linear(n_heads * value_width, d_model, bias=bias, rng=rng, **here)

    def forward(self, x: Tensor, *, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        """With a cache, which holds latents and turned keys, x (B, T, D) are the newest of S tokens, and causal."""
        at_least_rank("MultiHeadLatentAttention", 2, x=x)
        e, c = self.head_width, self.kv_rank
        if self.q_proj is not None:
            q = self._split(self.q_proj(x, noise=at(noise, "q_proj")))
        else:
            down = self.q_a_norm(self.q_a_proj(x, noise=at(noise, "q_a_proj")))
            q = self._split(self.q_b_proj(down, noise=at(noise, "q_b_proj")))
        down = self.kv_a_proj(x, noise=at(noise, "kv_a_proj"))  # (..., T, C + R)
        latent = self.kv_a_norm(down[..., :c])
        q, q_turned = q[..., :e], self._turn(q[..., e:], rotary)
        k_turned = self._turn(down[..., None, :, c:], rotary)  # (..., 1, T, R): one for all heads
        if cache is not None:
            held, k_turned, mask, causal = remembered(cache, latent[..., None, :, :], k_turned, mask)  # (B, 1, S, C) and (B, 1, S, R)
            latent = held[..., 0, :, :]
        options: dict[str, Any] = dict(mask=mask, causal=causal, scale=self.scale, dropout=self.dropout, noise=noise)
        if self.absorb:
            weight = self.kv_b_proj.weight.unflatten(0, (self.n_heads, -1))  # (H, E + W, C)
            heads = latent_attention(q, latent, weight[:, :e], weight[:, e:], q_turned, k_turned[..., 0, :, :], **options)
        else:
            up = self._split(self.kv_b_proj(latent, noise=at(noise, "kv_b_proj")))  # (..., H, T, E + W)
            key = torch.cat([up[..., :e], k_turned.expand(*up.shape[:-1], -1)], -1)
            heads = scaled_dot_product(torch.cat([q, q_turned], -1), key, up[..., e:], **options)
        return self.o_proj(heads.transpose(-2, -3).flatten(-2), noise=at(noise, "o_proj"))

    def _split(self, x: Tensor) -> Tensor:
        """(..., T, H · E) -> (..., H, T, E)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)

    def _turn(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        if rotary is None:
            return x
        at_least_rank("MultiHeadLatentAttention", 2, cos=rotary[0], sin=rotary[1])
        cos, sin = (table[..., None, :, :] for table in rotary)  # the same for every head
        return turn(x, cos=cos, sin=sin, interleaved=self.interleaved)
