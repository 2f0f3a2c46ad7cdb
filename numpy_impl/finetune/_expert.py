"""One expert of MixLoRA: three low-rank updates, beside what the frozen projections gave for its rows."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import same_names, same_shape
from byhand.noise import Noise, at
from numpy_impl.finetune.lora import lora_delta
from numpy_impl.layers.gated_feed_forward import GATES
from numpy_impl.layers.module import Grads, Module
from numpy_impl.ops.dropout import dropout as drop

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class LowRank(Module):
    """Δ = s · drop(x) Aᵀ Bᵀ:  lora_A (R, in), lora_B (out, R)."""

    def __init__(self, lora_A: NDArray, lora_B: NDArray, *, scaling: float, dropout: float):
        self.lora_A, self.lora_B = lora_A, lora_B
        self.scaling, self.dropout = scaling, dropout

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (n, in) -> Δ (n, out); backward: dΔ -> dx, grads."""
        delta, delta_backward = lora_delta(x, self.lora_A, self.lora_B, scaling=self.scaling, dropout=self.dropout, noise=noise)

        def backward(ddelta):
            dx, dlora_A, dlora_B = delta_backward(ddelta)
            return dx, self.grads(lora_A=dlora_A, lora_B=dlora_B)

        return delta, backward


class Expert(Module):
    """h = activation(g + Δ_gate(x)) · (u + Δ_up(x))  and  Δ_down(h),  where  g = W_gate x  and  u = W_up x  are there already.

    The caller adds W_down h, which it computes for the rows of all experts at once.
    """

    def __init__(self, arrays: Mapping[str, NDArray], *, activation: str, scaling: float, dropout: float, hidden_dropout: float):
        self.gate_proj, self.up_proj, self.down_proj = (
            LowRank(arrays[f"{name}.lora_A"], arrays[f"{name}.lora_B"], scaling=scaling, dropout=dropout) for name in PROJECTIONS
        )
        self.activation, self.hidden_dropout = activation, hidden_dropout

    def forward(self, x: NDArray, gate: NDArray, up: NDArray, *, noise: Noise | None = None) -> tuple[tuple[NDArray, NDArray], Callable]:
        """x (n, D), gate and up (n, F) -> h (n, F), Δ_down(h) (n, D); backward: dh, dΔ -> dx, dgate, dup, grads."""
        gate_delta, gate_backward = self.gate_proj.forward(x, noise=at(noise, "gate_proj"))
        up_delta, up_backward = self.up_proj.forward(x, noise=at(noise, "up_proj"))
        h, gated_backward = GATES[self.activation](gate + gate_delta, up + up_delta)
        h, drop_backward = drop(h, p=self.hidden_dropout, noise=noise)
        delta, down_backward = self.down_proj.forward(h, noise=at(noise, "down_proj"))

        def backward(dh, ddelta):
            dh_by_delta, ddown_proj = down_backward(ddelta)
            # g + Δ_gate(x) has one gradient, which goes to g as it is, and through Δ_gate to x; so does u + Δ_up(x).
            dgate, dup = gated_backward(drop_backward(dh + dh_by_delta))
            dx_by_gate, dgate_proj = gate_backward(dgate)
            dx_by_up, dup_proj = up_backward(dup)
            return dx_by_gate + dx_by_up, dgate, dup, {"gate_proj": dgate_proj, "up_proj": dup_proj, "down_proj": ddown_proj}

        return (h, delta), backward

    def no_grads(self) -> Grads:
        """The gradients of an expert that no token was routed to."""
        return {
            name: pair.grads(lora_A=np.zeros_like(pair.lora_A), lora_B=np.zeros_like(pair.lora_B))
            for name, pair in ((name, getattr(self, name)) for name in PROJECTIONS)
        }


def shapes(d_model: int, d_hidden: int, r: int) -> dict[str, tuple[int, int]]:
    """The shapes of an expert's arrays by name."""
    wide = {"gate_proj": (d_model, d_hidden), "up_proj": (d_model, d_hidden), "down_proj": (d_hidden, d_model)}
    return {f"{name}.{array}": shape for name, (n_in, n_out) in wide.items()
            for array, shape in (("lora_A", (r, n_in)), ("lora_B", (n_out, r)))}


def started(d_model: int, d_hidden: int, r: int, rng: np.random.Generator, dtype: DTypeLike) -> dict[str, NDArray]:
    """Where an expert's arrays start: A uniform in ±1/√in, B zero, so that the first output is the base's."""
    arrays: dict[str, Any] = {}
    for name, shape in shapes(d_model, d_hidden, r).items():
        bound = 1 / math.sqrt(shape[1]) if name.endswith("lora_A") else 0.0
        arrays[name] = rng.uniform(-bound, bound, shape).astype(dtype) if bound else np.zeros(shape, dtype)
    return arrays


def check_arrays(who: str, arrays: Mapping[str, NDArray], wanted: Mapping[str, tuple[int, int]]) -> None:
    """Fail unless a file held an expert of this layer."""
    same_names(who, wanted, expert=arrays)
    for name, shape in wanted.items():
        same_shape(who, shape, **{name: arrays[name]})
