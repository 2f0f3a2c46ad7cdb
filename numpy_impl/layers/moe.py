"""The mixture-of-experts layer (Shazeer et al. 2017, arXiv:1701.06538), in the place of a feed-forward layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, booleans, choice, demand, floats, same_shape
from byhand.configs.mixtral import DROPPED
from byhand.noise import Noise, at
from numpy_impl.layers._routed import Routes, Routing
from numpy_impl.layers.experts import Experts
from numpy_impl.layers.feed_forward import FeedForward
from numpy_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.router import Assignment, Router
from numpy_impl.moe.permute import Plan
from numpy_impl.ops.sigmoid import sigmoid


class MoE(Module):
    """y = Σ_{e chosen by the router} weight_e · expert_e(x) + gate · shared(x).

    Parameters
    ----------
    d_model : int       D, width of x and y
    d_hidden : int      F, width inside an expert
    n_experts : int     E
    k : int             experts a token
    activation : str    of the experts: swiglu, or another of GatedFeedForward's or FeedForward's
    d_shared : int      width inside an expert that every token goes to; None: there is none
    shared_gate : bool  whether gate = sigmoid(x · shared_gateᵀ), one number a token; else it is 1
    dropped : str       what a choice gives whose expert has no place: "zero", or "residual", weight · x
    dtype               of the parameters
    rng                 np.random.Generator of the initial values
    routing             the Router's options, by name

    `forward` stands in for any feed-forward layer. `routed` tells besides what the router did, and its backward takes the cotangents of
    the logits: a balance loss needs them.

    Examples
    --------
    >>> layer = MoE(4, 6, 8, 2, renormalise=True, rng=np.random.default_rng(0))
    >>> x = np.ones((3, 5, 4), np.float32)
    >>> y, backward = layer.forward(x)
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((3, 5, 4), ['router', 'experts'])
    >>> y, (routing,), backward = layer.routed(x)
    >>> routing.chosen.shape, int(routing.chosen.sum())
    ((3, 5, 8), 30)
    """

    def __init__(self, d_model: int, d_hidden: int, n_experts: int, k: int, *, activation: str = "swiglu", d_shared: int | None = None,
                 shared_gate: bool = False, dropped: str = "zero", dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
                 **routing: Any):
        choice("MoE", DROPPED, dropped=dropped)
        demand("MoE", not shared_gate or d_shared is not None, "d_shared for a shared_gate", d_shared=d_shared)
        self.dropped = dropped
        self.router = Router(d_model, n_experts, k, dtype=dtype, rng=rng, **routing)
        self.experts = Experts(n_experts, d_model, d_hidden, activation=activation, dtype=dtype, rng=rng)
        self.shared: Module | None = None
        if d_shared is not None:
            make = GatedFeedForward if activation in GATES else FeedForward
            self.shared = make(d_model, d_shared, activation=activation, bias=False, dtype=dtype, rng=rng)
        self.shared_gate = Linear(d_model, 1, bias=False, dtype=dtype, rng=rng) if shared_gate else None

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        y, _, backward = self.routed(x, noise=noise)
        return y, backward

    def routed(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None) -> tuple[NDArray, Routes, Callable]:
        """x (..., D), real (...) booleans, which tokens are no padding -> y (..., D), what the router did; backward: dy, dlogits of the
        router, one array (..., E) or none, -> dx, grads.

        The experts see no padding: of it, y holds what the shared expert gives.
        """
        floats("MoE", x=x)
        at_least_rank("MoE", 1, x=x)
        booleans("MoE", real=real)
        same_shape("MoE", x.shape[:-1], real=real)
        lead, n = x.shape[:-1], math.prod(x.shape[:-1])
        rows, real = x.reshape(n, x.shape[-1]), None if real is None else real.reshape(n)               # (N, D), (N,)
        sent, router_backward = self.router.forward(rows, real=real, noise=at(noise, "router"))
        scored = sent.logits.shape                                                                      # (N, E)
        y, experts_backward = self.experts.forward(rows, sent.weights, plan=Plan(sent.tokens, sent.slots, sent.counts))
        stays = self.dropped == "residual" and self.router.choice != "expert"
        if stays:
            lost = _lost(sent, real)                                                                    # (N, k)
            share = np.where(lost, sent.weights, 0).sum(1, keepdims=True)                               # (N, 1)
            y = y + share * rows
        if self.shared is not None:
            always, shared_backward = self._shared(rows, noise)
            y = y + always

        def backward(dy: NDArray, dlogits: Sequence[NDArray] = ()) -> tuple[NDArray, dict[str, Any]]:
            dy = dy.reshape(rows.shape)
            dx, dweights, dexperts = experts_backward(dy)
            if stays:                  # y_n holds w · x_n for every lost choice: w is multiplied by x_n, and x_n by the sum of its lost w
                dx = dx + share * dy
                dweights = dweights + np.where(lost, np.vecdot(dy, rows)[:, None], 0)
            dx_router, drouter = router_backward(dweights, dlogits[0].reshape(scored) if dlogits else np.zeros(scored, dy.dtype))
            dx, grads = dx + dx_router, {"router": drouter, "experts": dexperts}
            if self.shared is not None:
                dx_shared, dshared = shared_backward(dy)
                dx, grads = dx + dx_shared, grads | dshared
            return dx.reshape(x.shape), grads

        routing = (array.reshape(*lead, array.shape[1]) for array in (sent.logits, sent.chosen, sent.kept))
        return y.reshape(x.shape), (Routing(*routing),), backward

    def _shared(self, x: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """gate · shared(x) (N, D); backward: dy -> dx, grads."""
        assert self.shared is not None
        h, shared_backward = self.shared.forward(x, noise=at(noise, "shared"))
        if self.shared_gate is None:
            return h, lambda dy: _named(shared_backward(dy), "shared")
        logit, gate_backward = self.shared_gate.forward(x)                                              # (N, 1)
        gate, sigmoid_backward = sigmoid(logit)

        def backward(dy):
            dx, dshared = shared_backward(gate * dy)
            dx_gate, dgate = gate_backward(sigmoid_backward(np.vecdot(dy, h)[:, None]))
            return dx + dx_gate, {"shared": dshared, "shared_gate": dgate}

        return gate * h, backward


def _lost(sent: Assignment, real: NDArray | None) -> NDArray:
    """(N, k) booleans: the choices that found no place; those of padding looked for none."""
    lost = np.ones(sent.weights.size, bool)
    lost[sent.slots] = False
    lost = lost.reshape(sent.weights.shape)
    return lost if real is None else lost & real[:, None]


def _named(result: tuple[NDArray, Any], name: str) -> tuple[NDArray, dict[str, Any]]:
    return result[0], {name: result[1]}
