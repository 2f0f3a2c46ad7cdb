"""One expert of MixLoRA: three low-rank updates, beside what the frozen projections gave for its rows."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from byhand.checks import same_names, same_shape
from byhand.noise import Noise, at
from torch_impl.finetune.lora import lora_delta
from torch_impl.layers.gated_feed_forward import GATES
from torch_impl.ops.dropout import dropout as drop

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class LowRank(nn.Module):
    """Δ = s · drop(x) Aᵀ Bᵀ.  x (n, in) -> Δ (n, out); lora_A (R, in), lora_B (out, R)."""

    def __init__(self, lora_A: Tensor, lora_B: Tensor, *, scaling: float, dropout: float):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(lora_A), nn.Parameter(lora_B)
        self.scaling, self.dropout = scaling, dropout

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return lora_delta(x, self.lora_A, self.lora_B, scaling=self.scaling, dropout=self.dropout, noise=noise)


class Expert(nn.Module):
    """h = activation(g + Δ_gate(x)) · (u + Δ_up(x))  and  Δ_down(h),  where  g = W_gate x  and  u = W_up x  are there already.

    x (n, D), gate and up (n, F) -> h (n, F), Δ_down(h) (n, D).
    """

    def __init__(self, arrays: Mapping[str, Tensor], *, activation: str, scaling: float, dropout: float, hidden_dropout: float):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            LowRank(arrays[f"{name}.lora_A"], arrays[f"{name}.lora_B"], scaling=scaling, dropout=dropout) for name in PROJECTIONS
        )
        self.activation, self.hidden_dropout = activation, hidden_dropout

    def forward(self, x: Tensor, gate: Tensor, up: Tensor, *, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        gate = gate + self.gate_proj(x, noise=at(noise, "gate_proj"))
        up = up + self.up_proj(x, noise=at(noise, "up_proj"))
        h = drop(GATES[self.activation](gate, up), p=self.hidden_dropout, noise=noise)
        return h, self.down_proj(h, noise=at(noise, "down_proj"))


def shapes(d_model: int, d_hidden: int, r: int) -> dict[str, tuple[int, int]]:
    """The shapes of an expert's arrays by name."""
    wide = {"gate_proj": (d_model, d_hidden), "up_proj": (d_model, d_hidden), "down_proj": (d_hidden, d_model)}
    return {f"{name}.{array}": shape for name, (n_in, n_out) in wide.items()
            for array, shape in (("lora_A", (r, n_in)), ("lora_B", (n_out, r)))}


def started(d_model: int, d_hidden: int, r: int, rng: torch.Generator | None, like: Tensor) -> dict[str, Tensor]:
    """Where an expert's arrays start: A uniform in ±1/√in, B zero, so that the first output is the base's."""
    arrays = {name: like.new_zeros(shape) for name, shape in shapes(d_model, d_hidden, r).items()}
    for name, array in arrays.items():
        if name.endswith("lora_A"):
            bound = 1 / math.sqrt(array.shape[1])
            array.uniform_(-bound, bound, generator=rng)
    return arrays


def check_arrays(who: str, arrays: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, int]]) -> None:
    """Fail unless a file held an expert of this layer."""
    same_names(who, wanted, expert=arrays)
    for name, shape in wanted.items():
        same_shape(who, shape, **{name: arrays[name]})
