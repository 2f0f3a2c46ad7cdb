"""The layer that decides which experts compute a token."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import booleans, exact_rank, floats, same_shape, size
from byhand.configs.mixtral import routing_options
from byhand.noise import Noise, at
from torch_impl.moe.capacity import capacity, within_capacity
from torch_impl.moe.expert_choice import expert_choice
from torch_impl.moe.noisy import jitter, noisy_logits
from torch_impl.moe.permute import plan
from torch_impl.moe.router import router
from torch_impl.moe.sinkhorn import sinkhorn
from torch_impl.ops.linear import linear


class Assignment(NamedTuple):
    """Which expert computes which token: weights (N, k), or (E, C) where experts choose; logits (N, E); the plan's tokens (M,), slots (M,)
    and counts (E,); chosen (N, E), which experts were wanted for a token, none for padding, and kept (N, E), which of them compute it."""

    weights: Tensor
    logits: Tensor
    tokens: Tensor
    slots: Tensor
    counts: Tensor
    chosen: Tensor
    kept: Tensor


class Router(nn.Module):
    """weights, ids = router(x · weightᵀ),  then a plan of which token goes where, of those that find a place.

    x (N, D), real (N,) -> Assignment. All of it is computed in float32 at least, whatever the precision of x: rounding must not choose
    an expert.
    """

    def __init__(self, d_model: int, n_experts: int, k: int, *, choice: str = "token", score: str = "softmax", before: bool = True,
                 renormalise: bool = False, scale: float = 1.0, groups: int = 1, top_groups: int | None = None, group_score: str = "max",
                 correction: bool = False, capacity_factor: float | None = None, min_capacity: int = 1, drop_order: str = "choice",
                 jitter: float = 0.0, noisy: bool = False, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Router", d_model=d_model)
        routing_options(
            "Router", n_experts=n_experts, k=k, score=score, before=before, renormalise=renormalise, scale=scale, groups=groups,
            top_groups=top_groups, group_score=group_score, correction=correction, choice=choice, capacity_factor=capacity_factor,
            min_capacity=min_capacity, drop_order=drop_order, jitter=jitter, noisy=noisy,
        )
        self.n_experts, self.k, self.choice, self.score, self.jitter = n_experts, k, choice, score, jitter
        self.capacity_factor, self.min_capacity, self.drop_order = capacity_factor, min_capacity, drop_order
        self.options = dict(score=score, before=before, renormalise=renormalise, scale=scale, groups=groups, top_groups=top_groups,
                            group_score=group_score)
        self.weight = nn.Parameter(torch.empty(n_experts, d_model, dtype=dtype, device=device))
        nn.init.uniform_(self.weight, -1 / math.sqrt(d_model), 1 / math.sqrt(d_model), generator=rng)
        self.spread = nn.Parameter(torch.zeros(n_experts, d_model, dtype=dtype, device=device)) if noisy else None
        exact = torch.promote_types(dtype, torch.float32)                   # steps of 0.001 would be lost in fewer bits
        self.register_buffer("correction", torch.zeros(n_experts, dtype=exact, device=device) if correction else None)

    def forward(self, x: Tensor, *, real: Tensor | None = None, noise: Noise | None = None) -> Assignment:
        floats("Router", x=x)
        exact_rank("Router", 2, x=x)
        booleans("Router", real=real)
        same_shape("Router", x.shape[:1], real=real)
        logits = self._logits(_exact(x), noise)
        if self.choice == "expert":
            return self._experts_choose(logits, real)
        return self._tokens_choose(logits, real, balanced=self.choice == "sinkhorn" and noise is not None)

    def _logits(self, x: Tensor, noise: Noise | None) -> Tensor:
        x = jitter(x, eps=self.jitter, noise=at(noise, "jitter"))
        logits = linear(x, _exact(self.weight))
        if self.spread is None:
            return logits
        return noisy_logits(logits, linear(x, _exact(self.spread)), noise=at(noise, "noisy"))

    def _tokens_choose(self, logits: Tensor, real: Tensor | None, *, balanced: bool) -> Assignment:
        """Every token takes k experts."""
        n, e = logits.shape
        by, counting = None, balanced or self.capacity_factor is not None
        wanted = n if real is None or not counting else int(real.sum())     # read back from the device only where it is used
        if balanced and wanted > 1:                                         # one token alone would find all experts equal
            with torch.no_grad():
                here = slice(n) if real is None else real
                by = logits.clone()
                by[here] = sinkhorn(logits[here])                           # padding has no part in what is even
        correction = None if self.correction is None else _exact(self.correction)
        weights, _, ids = router(logits, k=self.k, bias=correction, by=by, **self.options)
        kept = None if real is None else real[:, None].expand(ids.shape)    # without padding and capacity nothing is read back
        if self.capacity_factor is not None:
            limit = capacity(tokens=wanted, experts=e, k=self.k, factor=self.capacity_factor, minimum=self.min_capacity)
            kept = within_capacity(ids, experts=e, limit=limit, order=self.drop_order, weights=weights, mask=real)
        tokens, slots, counts = plan(ids, experts=e, kept=kept)
        chosen = torch.zeros(n, e, dtype=torch.bool, device=logits.device).scatter(-1, ids, True)
        chosen = chosen if real is None else chosen & real[:, None]
        return Assignment(weights, logits, tokens, slots, counts, chosen, _computed(tokens, counts, n))

    def _experts_choose(self, logits: Tensor, real: Tensor | None) -> Assignment:
        """Every expert takes C tokens."""
        n, e = logits.shape
        real = torch.ones(n, dtype=torch.bool, device=logits.device) if real is None else real
        limit = capacity(tokens=int(real.sum()), experts=e, k=self.k)
        weights, _, ids = expert_choice(logits, limit=limit, score=self.score, mask=real)                     # (E, C)
        taken = real[ids]                                                   # where all is padding, an expert takes none
        tokens, counts = ids[taken], taken.sum(-1)
        kept = _computed(tokens, counts, n)
        return Assignment(weights, logits, tokens, taken.flatten().nonzero()[:, 0], counts, kept, kept)


def _exact(array: Tensor) -> Tensor:
    """In float32, if it has less."""
    return array.to(torch.promote_types(array.dtype, torch.float32))


def _computed(tokens: Tensor, counts: Tensor, n: int) -> Tensor:
    """(n, E) booleans: which expert has a row of which token."""
    computed = torch.zeros(n, len(counts), dtype=torch.bool, device=tokens.device)
    computed[tokens, torch.repeat_interleave(counts, output_size=len(tokens))] = True
    return computed
