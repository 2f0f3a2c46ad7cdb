"""The mixture-of-experts layer (Shazeer et al. 2017, arXiv:1701.06538), in the place of a feed-forward layer."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, booleans, choice, demand, floats, same_shape
from byhand.configs.mixtral import DROPPED
from byhand.noise import Noise, at
from torch_impl.layers._routed import Routes, Routing
from torch_impl.layers.experts import Experts
from torch_impl.layers.feed_forward import FeedForward
from torch_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from torch_impl.layers.linear import Linear
from torch_impl.layers.router import Router
from torch_impl.moe.permute import Plan


class MoE(nn.Module):
    """y = Σ_{e chosen by the router} weight_e · expert_e(x) + gate · shared(x).  x (..., D) -> y (..., D).

    `forward` stands in for any feed-forward layer; `routed` tells besides what the router did. `kernel` chooses how the products of all
    experts are made, as `grouped_linear` explains.
    """

    def __init__(self, d_model: int, d_hidden: int, n_experts: int, k: int, *, activation: str = "swiglu", d_shared: int | None = None,
                 shared_gate: bool = False, dropped: str = "zero", kernel: str = "auto", dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None, **routing: Any):
        super().__init__()
        choice("MoE", DROPPED, dropped=dropped)
        demand("MoE", not shared_gate or d_shared is not None, "d_shared for a shared_gate", d_shared=d_shared)
        self.dropped = dropped
        made: dict[str, Any] = dict(dtype=dtype, device=device, rng=rng)
        self.router = Router(d_model, n_experts, k, **made, **routing)
        self.experts = Experts(n_experts, d_model, d_hidden, activation=activation, kernel=kernel, **made)
        self.shared: nn.Module | None = None
        if d_shared is not None:
            make: Any = GatedFeedForward if activation in GATES else FeedForward
            self.shared = make(d_model, d_shared, activation=activation, bias=False, **made)
        self.shared_gate = Linear(d_model, 1, bias=False, **made) if shared_gate else None

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return self.routed(x, noise=noise)[0]

    def routed(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None) -> tuple[Tensor, Routes]:
        """x (..., D), real (...) booleans, which tokens are no padding -> y (..., D), what the router did."""
        floats("MoE", x=x)
        at_least_rank("MoE", 1, x=x)
        booleans("MoE", real=real)
        same_shape("MoE", x.shape[:-1], real=real)
        lead, n = x.shape[:-1], math.prod(x.shape[:-1])
        rows, real = x.reshape(n, x.shape[-1]), None if real is None else real.reshape(n)               # (N, D), (N,)
        sent = self.router(rows, real=real, noise=at(noise, "router"))
        y = self.experts(rows, sent.weights, plan=Plan(sent.tokens, sent.slots, sent.counts))
        if self.dropped == "residual" and self.router.choice != "expert":
            weights = sent.weights.to(x.dtype)
            lost = torch.ones(weights.numel(), dtype=torch.bool, device=x.device)
            lost[sent.slots] = False
            lost = lost.reshape(weights.shape) if real is None else lost.reshape(weights.shape) & real[:, None]
            y = y + torch.where(lost, weights, 0).sum(-1, keepdim=True) * rows
        if self.shared is not None:
            always = self.shared(rows, noise=at(noise, "shared"))
            y = y + (always if self.shared_gate is None else self.shared_gate(rows).sigmoid() * always)
        routing = (array.reshape(*lead, array.shape[-1]) for array in (sent.logits, sent.chosen, sent.kept))
        return y.reshape(x.shape), (Routing(*routing),)
