"""The block of the architecture experiments: two residual branches, normalised before, after, or not at all."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import choice, in_range
from byhand.configs.decoder import DROPPING, NORM_TYPES, NORMS
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._routed import Routes, Routing, routes, telling
from torch_impl.layers.decoder_attention import DecoderAttention
from torch_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from torch_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from torch_impl.layers.norm import LayerNorm, RMSNorm
from torch_impl.ops.dropout import dropout as drop


class DecoderBlock(nn.Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))      (norm "pre")
    y = norm2(mid + mlp(mid)),  with  mid = norm1(x + attn(x))      (norm "post")
    y = mid + mlp(mid),         with  mid = x + attn(x)             (norm "none")

    x (..., T, D) -> y (..., T, D). What a branch adds passes through dropout. `attention`: the other options of DecoderAttention.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: str = "pre", norm_type: str = "layer", activation: str = "gelu",
                 bias: bool = False, eps: float = 1e-5, dropout: float = 0.0, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None, **attention: Any):
        super().__init__()
        who = "DecoderBlock"
        choice(who, NORMS, norm=norm)
        choice(who, NORM_TYPES, norm_type=norm_type)
        choice(who, (*ACTIVATIONS, *GATES), activation=activation)
        in_range(who, 0, 1, dropout=dropout)
        self.norm, self.dropout = norm, dropout
        here: dict[str, Any] = dict(dtype=dtype, device=device)

        def make_norm() -> nn.Module | None:
            if norm == "none":
                return None
            return LayerNorm(d_model, eps=eps, bias=bias, **here) if norm_type == "layer" else RMSNorm(d_model, eps=eps, **here)

        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm()
        attention_dropout = dropout if attention.get("attention", "full") in DROPPING else 0.0
        self.attn = DecoderAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, rng=rng, **here, **attention)
        self.norm2 = make_norm()
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, bias=bias, rng=rng, **here)

    def forward(self, x: Tensor, *, noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        return self.routed(x, noise=noise, cache=cache)[0]

    @property
    def routes(self) -> bool:
        """Whether mlp has a router."""
        return routes(self.mlp)

    def routed(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None,
               cache: LayerCache | None = None) -> tuple[Tensor, Routes]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding."""
        found: list[Routing] = []

        def attend(h: Tensor) -> Tensor:
            return drop(self.attn(h, noise=at(noise, "attn"), cache=cache), p=self.dropout, noise=at(noise, "dropout1"))

        def feed(h: Tensor) -> Tensor:
            h = telling(self.mlp, found, h, real=real, noise=at(noise, "mlp"))
            return drop(h, p=self.dropout, noise=at(noise, "dropout2"))

        if self.norm == "pre":
            mid = x + attend(self.norm1(x))
            y = mid + feed(self.norm2(mid))
            return y, tuple(found)
        if self.norm == "post":
            mid = self.norm1(x + attend(x))
            y = self.norm2(mid + feed(mid))
            return y, tuple(found)
        mid = x + attend(x)
        y = mid + feed(mid)
        return y, tuple(found)
