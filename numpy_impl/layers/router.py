"""The layer that decides which experts compute a token."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import booleans, exact_rank, floats, same_shape, size
from byhand.configs.mixtral import routing_options
from byhand.noise import Noise, at
from numpy_impl.layers._fill import fill_uniform
from numpy_impl.layers.module import Module
from numpy_impl.moe.capacity import capacity, within_capacity
from numpy_impl.moe.expert_choice import expert_choice
from numpy_impl.moe.noisy import jitter, noisy_logits
from numpy_impl.moe.permute import plan
from numpy_impl.moe.router import router
from numpy_impl.moe.sinkhorn import sinkhorn
from numpy_impl.ops.linear import linear


class Assignment(NamedTuple):
    """Which expert computes which token, as `moe.experts` takes it.

    weights (N, k), or (E, C) where experts choose     what the outputs of the experts are multiplied by
    logits (N, E)
    tokens (M,), slots (M,), counts (E,)               the plan of the M rows that are computed
    chosen (N, E)                                      booleans: which experts were wanted for a token; none for padding
    kept (N, E)                                        booleans: which of them compute it
    """

    weights: NDArray
    logits: NDArray
    tokens: NDArray
    slots: NDArray
    counts: NDArray
    chosen: NDArray
    kept: NDArray


class Router(Module):
    """weights, ids = router(x · weightᵀ),  then a plan of which token goes where, of those that find a place.

    Parameters
    ----------
    d_model : int           D, width of x
    n_experts : int         E
    k : int                 experts a token
    choice : str            "token": `moe.router`; "expert": `moe.expert_choice`, k · N / E tokens an expert, rounded up; "sinkhorn": as
                            "token", but where `noise` is given by scores that `moe.sinkhorn` has scaled to an even load
    score, before, renormalise, scale, groups, top_groups, group_score      as `moe.router` takes them
    correction : bool       whether there is a buffer `correction` (E,), 0 at first, that is added to the scores to choose by; whoever
                            trains moves it with `moe.balance_bias` after an update
    capacity_factor, min_capacity, drop_order     as `moe.capacity` and `moe.within_capacity` take them; None: there is a place for all
    jitter : float          ε: x is multiplied by uniform numbers in 1 ± ε where `noise` is given, for the router alone
    noisy : bool            whether normal noise of spread softplus(x · spreadᵀ) is added to the logits where `noise` is given
    dtype                   of the parameters
    rng                     np.random.Generator of the initial values

    weight (E, D) starts as a Linear layer's does, spread (E, D) at zero.

    Examples
    --------
    >>> layer = Router(3, 4, 2, rng=np.random.default_rng(0))
    >>> sent, backward = layer.forward(np.eye(3, dtype=np.float32))
    >>> sent.weights.shape, int(sent.counts.sum()), sent.chosen.sum(-1)
    ((3, 2), 6, array([2, 2, 2]))
    >>> dx, grads = backward(np.ones_like(sent.weights), np.zeros_like(sent.logits))
    >>> dx.shape, grads["weight"].shape
    ((3, 3), (4, 3))
    """

    buffers = ("correction",)

    def __init__(self, d_model: int, n_experts: int, k: int, *, choice: str = "token", score: str = "softmax", before: bool = True,
                 renormalise: bool = False, scale: float = 1.0, groups: int = 1, top_groups: int | None = None, group_score: str = "max",
                 correction: bool = False, capacity_factor: float | None = None, min_capacity: int = 1, drop_order: str = "choice",
                 jitter: float = 0.0, noisy: bool = False, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
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
        self.weight = np.empty((n_experts, d_model), dtype)
        fill_uniform(self.weight, rng or np.random.default_rng(), 1 / math.sqrt(d_model))
        self.spread = np.zeros((n_experts, d_model), dtype) if noisy else None
        self.correction = np.zeros(n_experts, dtype) if correction else None

    def forward(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None) -> tuple[Assignment, Callable]:
        """x (N, D), real (N,) booleans, which tokens are no padding -> Assignment; backward: dweights, dlogits -> dx, grads.

        Padding is sent nowhere, and takes no place.
        """
        floats("Router", x=x)
        exact_rank("Router", 2, x=x)
        booleans("Router", real=real)
        same_shape("Router", x.shape[:1], real=real)
        logits, logits_backward = self._logits(x, noise)
        if self.choice == "expert":
            sent, choice_backward = self._experts_choose(logits, real)
        else:
            sent, choice_backward = self._tokens_choose(logits, real, balanced=self.choice == "sinkhorn" and noise is not None)

        def backward(dweights, dlogits):
            return logits_backward(dlogits + choice_backward(dweights))

        return sent, backward

    def _logits(self, x: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """x (N, D) -> logits (N, E); backward: dlogits -> dx, grads."""
        x, jitter_backward = jitter(x, eps=self.jitter, noise=at(noise, "jitter"))
        logits, linear_backward = linear(x, self.weight)
        if self.spread is not None:
            spread, spread_backward = linear(x, self.spread)
            logits, noisy_backward = noisy_logits(logits, spread, noise=at(noise, "noisy"))

        def backward(dlogits):
            dx_noisy, dspread = 0.0, None
            if self.spread is not None:
                dlogits, dspread = noisy_backward(dlogits)
                dx_noisy, dspread, _ = spread_backward(dspread)
            dx, dweight, _ = linear_backward(dlogits)
            return jitter_backward(dx + dx_noisy), self.grads(weight=dweight, spread=dspread)

        return logits, backward

    def _tokens_choose(self, logits: NDArray, real: NDArray | None, *, balanced: bool) -> tuple[Assignment, Callable]:
        """Every token takes k experts; backward: dweights (N, k) -> dlogits."""
        n, e = logits.shape
        wanted, by = n if real is None else int(np.count_nonzero(real)), None
        if balanced and wanted > 1:                                                     # one token alone would find all experts equal
            here = slice(n) if real is None else real
            by = logits.copy()
            by[here] = sinkhorn(logits[here])[0]                                        # padding has no part in what is even
        (weights, scores, ids), router_backward = router(logits, k=self.k, bias=self.correction, by=by, **self.options)
        kept = None if real is None else np.broadcast_to(real[:, None], ids.shape)
        if self.capacity_factor is not None:
            limit = capacity(tokens=wanted, experts=e, k=self.k, factor=self.capacity_factor, minimum=self.min_capacity)
            kept = within_capacity(ids, experts=e, limit=limit, order=self.drop_order, weights=weights, mask=real)
        tokens, slots, counts = plan(ids, experts=e, kept=kept)
        chosen = np.zeros((n, e), bool)
        np.put_along_axis(chosen, ids, True, 1)
        if real is not None:
            chosen[~real] = False
        sent = Assignment(weights, logits, tokens, slots, counts, chosen, _computed(tokens, counts, n))
        return sent, lambda dweights: router_backward(dweights, np.zeros_like(scores))

    def _experts_choose(self, logits: NDArray, real: NDArray | None) -> tuple[Assignment, Callable]:
        """Every expert takes C tokens; backward: dweights (E, C) -> dlogits."""
        n, e = logits.shape
        real = np.ones(n, bool) if real is None else real
        limit = capacity(tokens=int(real.sum()), experts=e, k=self.k)
        (weights, scores, ids), choice_backward = expert_choice(logits, limit=limit, score=self.score, mask=real)     # (E, C)
        taken = real[ids]                                                               # where all is padding, an expert takes none
        tokens, counts = ids[taken], taken.sum(1)
        kept = _computed(tokens, counts, n)
        sent = Assignment(weights, logits, tokens, np.flatnonzero(taken), counts, kept, kept)
        return sent, lambda dweights: choice_backward(dweights, np.zeros_like(scores))


def _computed(tokens: NDArray, counts: NDArray, n: int) -> NDArray:
    """(n, E) booleans: which expert has a row of which token."""
    computed = np.zeros((n, len(counts)), bool)
    computed[tokens, np.repeat(np.arange(len(counts)), counts)] = True
    return computed
