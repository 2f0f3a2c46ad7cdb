"""MixLoRA (Li et al. 2024, arXiv:2404.15159): a frozen feed-forward layer, and low-rank updates of it as its experts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, demand, fail, floats, in_range, same_shape, size
from byhand.noise import Noise, at
from numpy_impl.finetune._expert import Expert, check_arrays, shapes, started
from numpy_impl.finetune._projections import OnFrozen, measure, need_gated
from numpy_impl.finetune.lora import lora_scaling
from numpy_impl.layers._fill import fill_normal
from numpy_impl.layers._routed import Routes, Routing
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.module import Module
from numpy_impl.moe.permute import permute, plan, unpermute
from numpy_impl.moe.router import router
from numpy_impl.ops.linear import linear

Loader = Callable[[int], Mapping[str, NDArray]]


class _Router(Module):
    """logits = x Wᵀ: how much each expert is for each token. It trains as a whole, so it is no Linear, which adapters would stand on."""

    def __init__(self, weight: NDArray):
        self.weight = weight

    def forward(self, x: NDArray) -> tuple[NDArray, Callable]:
        """x (N, D) -> logits (N, E); backward: dlogits -> dx, grads."""
        logits, linear_backward = linear(x, self.weight)

        def backward(dlogits):
            dx, dweight, _ = linear_backward(dlogits)
            return dx, self.grads(weight=dweight)

        return logits, backward


class MixLoRA(OnFrozen):
    """y = Σ_e p_e(x) · E_e(x)  over the k experts that the router chooses for x, each a low-rank update of the frozen layer:

        E_e(x) = (W_down + s B_d A_d) h,    h = activation((W_gate + s B_g A_g) x) · ((W_up + s B_u A_u) x)

    with A and B of its own for each of the three. W_gate x and W_up x are the same for all experts and computed once; W_down is multiplied
    with the rows of all experts together. What is done for a single expert is thin: R columns.

    Parameters
    ----------
    base : GatedFeedForward   what it stands in place of, its projections plain or in 4 bits; it is frozen
    n_experts : int           E
    k : int                   how many experts compute a token, at most E
    r : int                   R, the rank of each update
    alpha : float             s = α/r
    rslora : bool             or s = α/√r
    dropout : float           probability in [0, 1] for an entry of an update's input, on the path of the update only
    renormalise : bool        whether p, the softmax of the router's logits, is divided by its sum over the k experts
    loader                    for inference: expert e -> its arrays by name; the layer then holds none, and asks for those that have tokens
    rng                       np.random.Generator of the start: A uniform in ±1/√in, B zero, the router normal with deviation 0.02

    router.weight (E, D); experts.0.gate_proj.lora_A (R, D), experts.0.gate_proj.lora_B (F, R), likewise up_proj; experts.0.down_proj.lora_A
    (R, F), experts.0.down_proj.lora_B (D, R) … An expert reads the rows of its own tokens and no others, so that a token has no part at all
    in the gradients of the experts it was not routed to; without tokens they are zero.

    Raises
    ------
    ValueError   if base is no gated layer of plain or 4-bit projections, an option is out of range, a logit is NaN, or the loader gives
                 arrays of another layer

    Examples
    --------
    >>> layer = MixLoRA(GatedFeedForward(4, 6, rng=np.random.default_rng(0)), n_experts=3, r=2, rng=np.random.default_rng(1))
    >>> x = np.ones((5, 4), dtype=np.float32)
    >>> y, backward = layer.forward(x)
    >>> bool(np.allclose(y, layer.base(x), atol=1e-6))               # every B is zero, and the weights of a token sum to 1
    True
    >>> dx, grads = backward(np.ones_like(y))
    >>> grads["experts"][0]["down_proj"]["lora_B"].shape, grads["router"]["weight"].shape
    ((4, 2), (3, 4))
    """

    def __init__(self, base: GatedFeedForward, *, n_experts: int, k: int = 2, r: int = 8, alpha: float = 16.0, rslora: bool = False,
                 dropout: float = 0.0, renormalise: bool = True, loader: Loader | None = None, rng: np.random.Generator | None = None):
        who = "MixLoRA"
        need_gated(who, base)
        size(who, n_experts=n_experts, k=k, r=r)
        demand(who, k <= n_experts, "k <= n_experts", k=k, n_experts=n_experts)
        in_range(who, 0, 1, dropout=dropout)
        scaling = lora_scaling(r, alpha, rslora=rslora)
        super().__init__(base)
        d_hidden, d_model, dtype = measure(base.gate_proj)
        self.n_experts, self.k, self.r, self.d_model, self.d_hidden = n_experts, k, r, d_model, d_hidden
        self.scaling, self.dropout, self.renormalise, self.loader = scaling, dropout, renormalise, loader
        rng = rng or np.random.default_rng()
        self.router = _Router(np.empty((n_experts, d_model), dtype))
        fill_normal(self.router.weight, rng, 0.02)
        self.experts = [] if loader is not None else [self._made(started(d_model, d_hidden, r, rng, dtype)) for _ in range(n_experts)]

    def expert(self, e: int) -> Expert:
        """Expert e, from memory or from the loader."""
        if self.loader is None:
            return self.experts[e]
        arrays = {name: np.asarray(array, self.router.weight.dtype) for name, array in self.loader(e).items()}
        check_arrays("MixLoRA", arrays, shapes(self.d_model, self.d_hidden, self.r))
        return self._made(arrays)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., D) -> y (..., D); backward: dy -> dx, grads."""
        y, _, backward = self.routed(x, noise=noise)
        return y, backward

    def routed(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None) -> tuple[NDArray, Routes, Callable]:
        """x (..., D) -> y (..., D) and one Routing; backward: dy, dlogits -> dx, grads.

        dlogits is one array for the Routing's logits, or (). Every expert has room for every token; only padding, where `real` (...) is
        False, is sent nowhere, and its y is 0.
        """
        floats("MixLoRA", x=x)
        at_least_rank("MixLoRA", 1, x=x)
        same_shape("MixLoRA", (*x.shape[:-1], self.d_model), x=x)
        booleans("MixLoRA", real=real)
        same_shape("MixLoRA", x.shape[:-1], real=real)
        lead, n = x.shape[:-1], math.prod(x.shape[:-1])
        flat, base_noise = x.reshape(n, self.d_model), at(noise, "base")
        logits, router_backward = self.router.forward(flat)                                       # (N, E)
        choice, choice_backward = router(logits, k=self.k, renormalise=self.renormalise)
        kept = np.broadcast_to(np.True_ if real is None else real.reshape(n, 1), choice.ids.shape)
        way = plan(choice.ids, experts=self.n_experts, kept=kept)
        gate, gate_backward = self.base.gate_proj.forward(flat, noise=at(base_noise, "gate_proj"))       # (N, F), for all experts
        up, up_backward = self.base.up_proj.forward(flat, noise=at(base_noise, "up_proj"))               # (N, F)
        x_rows, x_backward = permute(flat, tokens=way.tokens)                                     # (M, D), an expert's rows together
        gate_rows, gate_rows_backward = permute(gate, tokens=way.tokens)                          # (M, F)
        up_rows, up_rows_backward = permute(up, tokens=way.tokens)                                # (M, F)
        h, delta, pullbacks = np.empty_like(gate_rows), np.empty_like(x_rows), {}
        for e, rows in _active(way.counts):
            inside = (x_rows[rows], gate_rows[rows], up_rows[rows])
            (h[rows], delta[rows]), pullback = self.expert(e).forward(*inside, noise=at(noise, f"experts.{e}"))
            if self.loader is None:
                pullbacks[e] = rows, pullback
            del pullback                                  # it holds the expert, which may have to go before the next one comes
        y_rows, down_backward = self.base.down_proj.forward(h, noise=at(base_noise, "down_proj"))        # (M, D)
        y_rows = np.add(y_rows, delta, out=delta)
        y, sum_backward = unpermute(y_rows, choice.weights.reshape(-1)[way.slots], tokens=way.tokens, n=n)
        weights_shape = choice.weights.shape

        def backward(dy: NDArray, dlogits: Sequence[NDArray] = ()):
            if self.loader is not None:
                fail("MixLoRA", "its experts in memory for a backward", "a loader, which is for inference")
            dy_rows, dslots = sum_backward(dy.reshape(n, self.d_model))
            # W_down's share of dh, for all experts at once; each adds what came through its own update of W_down.
            dh, ddown_proj = down_backward(dy_rows)
            dx_rows, dgate_rows, dup_rows = np.empty_like(dy_rows), np.empty_like(dh), np.empty_like(dh)
            dexperts = [None if e in pullbacks else expert.no_grads() for e, expert in enumerate(self.experts)]
            for e, (rows, pullback) in pullbacks.items():
                dx_rows[rows], dgate_rows[rows], dup_rows[rows], dexperts[e] = pullback(dh[rows], dy_rows[rows])
            # A token's k rows all read the same g = W_gate x, so dg sums over them: that is permute's pullback.
            dx_by_gate, dgate_proj = gate_backward(gate_rows_backward(dgate_rows))
            dx_by_up, dup_proj = up_backward(up_rows_backward(dup_rows))
            dweights = np.zeros(weights_shape, dslots.dtype)
            dweights.reshape(-1)[way.slots] = dslots                                              # a slot has one row, or none for padding
            dlogits_all = choice_backward(dweights, np.zeros_like(logits))
            for dlogits_of_loss in dlogits:
                dlogits_all = dlogits_all + dlogits_of_loss.reshape(logits.shape)
            dx_by_router, drouter = router_backward(dlogits_all)
            dx = x_backward(dx_rows) + dx_by_gate + dx_by_up + dx_by_router
            dbase = {"gate_proj": dgate_proj, "up_proj": dup_proj, "down_proj": ddown_proj}
            return dx.reshape(*lead, self.d_model), {"base": dbase, "router": drouter, "experts": dexperts}

        computed = np.zeros(logits.shape, bool)
        np.put_along_axis(computed, choice.ids, kept, 1)
        routing = Routing(*(told.reshape(*lead, self.n_experts) for told in (logits, computed, computed)))
        return y.reshape(*lead, self.d_model), (routing,), backward

    def _made(self, arrays: Mapping[str, NDArray]) -> Expert:
        base = self.base
        return Expert(arrays, activation=base.activation, scaling=self.scaling, dropout=self.dropout, hidden_dropout=base.dropout)


def _active(counts: NDArray) -> Iterator[tuple[int, slice]]:
    """(e, its rows) of every expert that has any."""
    ends = np.cumsum(counts).tolist()
    for e, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end > begin:
            yield e, slice(begin, end)
