"""The transformer block: two residual branches, attention and feed-forward, and where they are normalised."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from byhand.checks import choice, demand, in_range, positive
from byhand.noise import Noise, at
from torch_impl.decode.cache import LayerCache
from torch_impl.layers._routed import Routes, Routing, routes, telling
from torch_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from torch_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from torch_impl.layers.init import xavier_normal
from torch_impl.layers.multi_head_attention import MultiHeadAttention
from torch_impl.layers.norm import LayerNorm, RMSNorm
from torch_impl.ops.dropout import dropout as drop

Order = Literal["pre", "post", "sandwich", "parallel", "none"]


class Block(nn.Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))      (order "pre")
    y = norm2(α · mid + mlp(mid)),  with  mid = norm1(α · x + attn(x))      ("post"; with α ≠ 1 DeepNorm)
    y = mid + norm2_after(mlp(norm2(mid))),  with  mid = x + norm1_after(attn(norm1(x)))      ("sandwich")
    y = x + attn(h) + mlp(h),  with  h = norm1(x)      ("parallel")
    y = mid + mlp(mid),  with  mid = x + attn(x)      ("none")

    x (..., T, D), bias and mask broadcastable to (..., H, T, T), True = may see -> y (..., T, D). What a branch gives passes through
    dropout first.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: Literal["layer", "rms"] = "layer",
                 order: Order = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0, head_width: int | None = None,
                 scale: float | None = None, alpha: float = 1.0, beta: float | None = None,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        choice("Block", ("layer", "rms"), norm=norm)
        choice("Block", ("pre", "post", "sandwich", "parallel", "none"), order=order)
        choice("Block", (*ACTIVATIONS, *GATES), activation=activation)
        in_range("Block", 0, 1, dropout=dropout)
        positive("Block", alpha=alpha)
        demand("Block", order == "post" or alpha == 1, "order='post' with an alpha", order=order, alpha=alpha)
        self.order, self.dropout, self.alpha = order, dropout, alpha
        here: dict[str, Any] = dict(dtype=dtype, device=device)

        def make_norm(*orders: Order) -> nn.Module | None:
            return _make_norm(norm, d_model, eps, bias, **here) if order in orders else None

        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm("pre", "post", "sandwich", "parallel")
        self.attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, head_width=head_width, scale=scale,
                                       rng=rng, **here)
        self.norm1_after = make_norm("sandwich")
        self.norm2 = make_norm("pre", "post", "sandwich")
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, bias=bias, dropout=hidden_dropout, rng=rng, **here)
        self.norm2_after = make_norm("sandwich")
        if beta is not None:
            _start_deepnorm(self, beta, rng)

    def forward(self, x: Tensor, bias: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> Tensor:
        return self.routed(x, bias, mask=mask, causal=causal, noise=noise, cache=cache)[0]

    @property
    def routes(self) -> bool:
        """Whether mlp has a router."""
        return routes(self.mlp)

    def routed(self, x: Tensor, bias: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False,
               real: Tensor | None = None, noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[Tensor, Routes]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding."""
        found: list[Routing] = []

        def attend(h: Tensor) -> Tensor:
            h = self.attn(h, None, bias, mask=mask, causal=causal, noise=at(noise, "attn"), cache=cache)
            return drop(h, p=self.dropout, noise=at(noise, "dropout1"))

        def feed(h: Tensor) -> Tensor:
            h = telling(self.mlp, found, h, real=real, noise=at(noise, "mlp"))
            return drop(h, p=self.dropout, noise=at(noise, "dropout2"))

        if self.order == "parallel":
            h = self.norm1(x)
            return x + attend(h) + feed(h), tuple(found)
        mid = self._add(x, attend, self.norm1, self.norm1_after)
        y = self._add(mid, feed, self.norm2, self.norm2_after)
        return y, tuple(found)

    def _add(self, x: Tensor, branch: Callable, norm: nn.Module | None, after: nn.Module | None) -> Tensor:
        """x and what a branch adds to it."""
        if self.order == "post":
            return norm(self.alpha * x + branch(x))
        h = branch(x if norm is None else norm(x))
        return x + (h if after is None else after(h))


def _make_norm(norm: str, d_model: int, eps: float, bias: bool, **here: Any) -> nn.Module:
    return LayerNorm(d_model, eps=eps, bias=bias, **here) if norm == "layer" else RMSNorm(d_model, eps=eps, **here)


def _start_deepnorm(block: nn.Module, beta: float, rng: torch.Generator | None) -> None:
    """Xavier weights, smaller by β where a branch's output is linear in them."""
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.endswith("proj.weight"):
                gain = 1 if name.endswith(("q_proj.weight", "k_proj.weight")) else beta
                parameter.copy_(xavier_normal(tuple(parameter.shape), gain=gain, dtype=parameter.dtype, device=parameter.device, rng=rng))
