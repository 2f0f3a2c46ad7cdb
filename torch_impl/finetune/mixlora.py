"""MixLoRA (Li et al. 2024, arXiv:2404.15159): a frozen feed-forward layer, and low-rank updates of it as its experts."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byhand.checks import at_least_rank, booleans, demand, fail, floats, in_range, same_shape, size
from byhand.noise import Noise, at
from torch_impl.finetune._expert import Expert, check_arrays, shapes, started
from torch_impl.finetune._projections import measure, need_gated
from torch_impl.finetune.lora import lora_scaling
from torch_impl.layers._routed import Routes, Routing
from torch_impl.layers.gated_feed_forward import GatedFeedForward
from torch_impl.moe.permute import permute, plan, unpermute
from torch_impl.moe.router import router

Loader = Callable[[int], Mapping[str, Any]]


class _Router(nn.Module):
    """logits = x Wᵀ, in float32 at least.  x (N, D) -> (N, E)."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(dtype), self.weight.to(dtype))


class _ForInference(torch.autograd.Function):
    """y as it is. A backward is refused: to leave out what came through the experts would make all gradients before them wrong."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, *inputs: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        fail("MixLoRA", "its experts in memory for a backward", "a loader, which is for inference")


class MixLoRA(nn.Module):
    """y = Σ_e p_e(x) · E_e(x)  over the k experts that the router chooses for x, each a low-rank update of the frozen layer.

    base : GatedFeedForward with projections plain or in 4 bits. x (..., D) -> y (..., D). router.weight (E, D);
    experts.0.gate_proj.lora_A (R, D), experts.0.gate_proj.lora_B (F, R) … With a `loader`, expert e -> its arrays by name, the layer holds
    no experts, asks for those that have tokens, and refuses a backward.
    """

    def __init__(self, base: GatedFeedForward, *, n_experts: int, k: int = 2, r: int = 8, alpha: float = 16.0, rslora: bool = False,
                 dropout: float = 0.0, renormalise: bool = True, loader: Loader | None = None, rng: torch.Generator | None = None):
        super().__init__()
        who = "MixLoRA"
        need_gated(who, base)
        size(who, n_experts=n_experts, k=k, r=r)
        demand(who, k <= n_experts, "k <= n_experts", k=k, n_experts=n_experts)
        in_range(who, 0, 1, dropout=dropout)
        scaling = lora_scaling(r, alpha, rslora=rslora)
        self.base = base.requires_grad_(False)
        d_hidden, d_model, here = measure(base.gate_proj)
        self.n_experts, self.k, self.r, self.d_model, self.d_hidden = n_experts, k, r, d_model, d_hidden
        self.scaling, self.dropout, self.renormalise, self.loader = scaling, dropout, renormalise, loader
        self.router = _Router(torch.empty((n_experts, d_model), **here).normal_(std=0.02, generator=rng))
        made = [] if loader is not None else [started(d_model, d_hidden, r, rng, self.router.weight.data) for _ in range(n_experts)]
        self.experts = nn.ModuleList(map(self._made, made))

    def expert(self, e: int) -> Any:
        """Expert e, from memory or from the loader."""
        if self.loader is None:
            return self.experts[e]
        like = self.router.weight
        arrays = {name: torch.as_tensor(array, dtype=like.dtype, device=like.device) for name, array in self.loader(e).items()}
        check_arrays("MixLoRA", arrays, shapes(self.d_model, self.d_hidden, self.r))
        return self._made(arrays).requires_grad_(False)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return self.routed(x, noise=noise)[0]

    def routed(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None) -> tuple[Tensor, Routes]:
        """As `forward`, and one Routing. Where `real` (...) is False there is padding: it is sent nowhere, and its y is 0."""
        floats("MixLoRA", x=x)
        at_least_rank("MixLoRA", 1, x=x)
        same_shape("MixLoRA", (*x.shape[:-1], self.d_model), x=x)
        booleans("MixLoRA", real=real)
        same_shape("MixLoRA", x.shape[:-1], real=real)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.loader is None):
            lead, n = x.shape[:-1], math.prod(x.shape[:-1])
            flat, base_noise = x.reshape(n, self.d_model), at(noise, "base")
            logits = self.router(flat)                                                            # (N, E)
            choice = router(logits, k=self.k, renormalise=self.renormalise)
            kept = None if real is None else real.reshape(n, 1).expand_as(choice.ids)
            way = plan(choice.ids, experts=self.n_experts, kept=kept)
            gate = self.base.gate_proj(flat, noise=at(base_noise, "gate_proj"))                   # (N, F), for all experts
            up = self.base.up_proj(flat, noise=at(base_noise, "up_proj"))                         # (N, F)
            x_rows, gate_rows, up_rows = (permute(z, tokens=way.tokens) for z in (flat, gate, up))   # (M, ...)
            counts = way.counts.tolist()
            # split, whose gradient is one cat; that of each slice would be as large as all rows together.
            parts = zip(*(z.split(counts) for z in (x_rows, gate_rows, up_rows)), strict=True)
            done = [self.expert(e)(*part, noise=at(noise, f"experts.{e}")) for e, part in enumerate(parts) if counts[e]]
            h, delta = (torch.cat(z) for z in zip(*done, strict=True)) if done else (gate_rows, x_rows)
            y_rows = self.base.down_proj(h, noise=at(base_noise, "down_proj")) + delta            # (M, D)
            weights = choice.weights.reshape(-1)[way.slots].to(y_rows.dtype)
            y = unpermute(y_rows, weights, tokens=way.tokens, n=n)
        if self.loader is not None:
            y = _ForInference.apply(y, x, self.router.weight)
        nothing = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        computed = nothing.scatter(-1, choice.ids, True if kept is None else kept)
        routing = Routing(*(told.reshape(*lead, self.n_experts) for told in (logits, computed, computed)))
        return y.reshape(x.shape), (routing,)

    def _made(self, arrays: Mapping[str, Tensor]) -> Expert:
        base = self.base
        return Expert(arrays, activation=base.activation, scaling=self.scaling, dropout=self.dropout, hidden_dropout=base.dropout)
