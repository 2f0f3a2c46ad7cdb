"""The block of the Llama family (Touvron et al. 2023, arXiv:2302.13971): RMS norms, grouped-query attention with rotary, a gated mlp."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from byhand.checks import in_range
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._routed import Routes, routed, routes
from torch_impl.layers.gated_feed_forward import GatedFeedForward
from torch_impl.layers.grouped_query_attention import GroupedQueryAttention
from torch_impl.layers.norm import RMSNorm
from torch_impl.ops.dropout import dropout as drop


class LlamaBlock(nn.Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x)).

    x (..., T, D), rotary and mask as GroupedQueryAttention takes them -> y (..., T, D). What a branch adds passes through dropout.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, n_kv_heads: int | None = None, head_width: int | None = None,
                 attention_bias: bool | Literal["qkv"] = False, mlp_bias: bool = False, qk_norm: bool = False,
                 window: tuple[int | None, int | None] | None = None, activation: str = "swiglu", eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, mlp: nn.Module | None = None, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        in_range("LlamaBlock", 0, 1, dropout=dropout)
        self.dropout = dropout
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.norm1 = RMSNorm(d_model, eps=eps, **here)
        self.attn = GroupedQueryAttention(
            d_model, n_heads, n_kv_heads, head_width=head_width, bias=attention_bias, qk_norm=qk_norm, eps=eps, window=window,
            dropout=attention_dropout, rng=rng, **here,
        )
        self.norm2 = RMSNorm(d_model, eps=eps, **here)
        if mlp is None:
            mlp = GatedFeedForward(d_model, d_hidden, activation=activation, bias=mlp_bias, rng=rng, **here)
        self.mlp = mlp

    def forward(self, x: Tensor, *, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        return self.routed(x, rotary=rotary, mask=mask, causal=causal, noise=noise, cache=cache)[0]

    @property
    def routes(self) -> bool:
        """Whether mlp has a router."""
        return routes(self.mlp)

    def routed(self, x: Tensor, *, rotary: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None, causal: bool = False,
               real: Tensor | None = None, noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[Tensor, Routes]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding."""
        h = self.attn(self.norm1(x), rotary=rotary, mask=mask, causal=causal, noise=at(noise, "attn"), cache=cache)
        mid = x + drop(h, p=self.dropout, noise=at(noise, "dropout1"))
        h, found = routed(self.mlp, self.norm2(mid), real=real, noise=at(noise, "mlp"))
        return mid + drop(h, p=self.dropout, noise=at(noise, "dropout2")), found
