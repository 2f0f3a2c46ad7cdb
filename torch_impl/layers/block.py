"""The transformer block: two residual branches, attention and feed-forward, normalised before (pre) or after (post)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from byhand.checks import choice, in_range
from byhand.noise import Noise, at
from torch_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from torch_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from torch_impl.layers.multi_head_attention import MultiHeadAttention
from torch_impl.layers.norm import LayerNorm, RMSNorm
from torch_impl.ops.dropout import dropout as drop


class Block(nn.Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))      (order "pre")
    y = norm2(mid + mlp(mid)),  with  mid = norm1(x + attn(x))      (order "post")

    x (..., T, D), mask broadcastable to (..., H, T, T), True = may see -> y (..., T, D). What a branch adds passes through dropout.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: Literal["layer", "rms"] = "layer",
                 order: Literal["pre", "post"] = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        choice("Block", ("layer", "rms"), norm=norm)
        choice("Block", ("pre", "post"), order=order)
        choice("Block", (*ACTIVATIONS, *GATES), activation=activation)
        in_range("Block", 0, 1, dropout=dropout)
        self.order, self.dropout = order, dropout
        here: dict[str, Any] = dict(dtype=dtype, device=device)

        def make_norm() -> nn.Module:
            return LayerNorm(d_model, eps=eps, bias=bias, **here) if norm == "layer" else RMSNorm(d_model, eps=eps, **here)

        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm()
        self.attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, rng=rng, **here)
        self.norm2 = make_norm()
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, bias=bias, dropout=hidden_dropout, rng=rng, **here)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False, noise: Noise | None = None) -> Tensor:
        def attend(h: Tensor) -> Tensor:
            h = self.attn(h, mask=mask, causal=causal, noise=at(noise, "attn"))
            return drop(h, p=self.dropout, noise=at(noise, "dropout1"))

        def feed(h: Tensor) -> Tensor:
            return drop(self.mlp(h, noise=at(noise, "mlp")), p=self.dropout, noise=at(noise, "dropout2"))

        if self.order == "pre":
            mid = x + attend(self.norm1(x))
            return mid + feed(self.norm2(mid))
        mid = self.norm1(x + attend(x))
        return self.norm2(mid + feed(mid))
