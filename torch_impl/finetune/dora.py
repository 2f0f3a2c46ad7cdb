"""Weight-decomposed low-rank adaptation (DoRA; Liu et al. 2024, arXiv:2402.09353): a row's length is trained apart from its direction."""

from typing import Any

import torch
from torch import Tensor

from byhand.checks import at_least_rank, exact_rank, floats, in_range, same_shape


def dora_norm(lora_A: Tensor, lora_B: Tensor, *, weight: Tensor | Any, scaling: float) -> Tensor:
    """n_o = ‖V_o‖ = √(Σ_i V_oi²),  with  V = W + s · B A:  the length of every row of the moved weight.

    lora_A (R, I), lora_B (O, R), weight (O, I), a constant -> n (O,). A row of zeros gets no gradient.
    """
    floats("dora_norm", lora_A=lora_A, lora_B=lora_B, weight=weight)
    exact_rank("dora_norm", 2, lora_A=lora_A, lora_B=lora_B, weight=weight)
    same_shape("dora_norm", (lora_A.shape[0], weight.shape[1]), lora_A=lora_A)
    same_shape("dora_norm", (weight.shape[0], lora_A.shape[0]), lora_B=lora_B)
    in_range("dora_norm", -1e30, 1e30, scaling=scaling)
    return torch.linalg.vector_norm(torch.addmm(weight, lora_B, lora_A * scaling), dim=1)


def dora_delta(plain: Tensor, low_rank: Tensor, magnitude: Tensor, norm: Tensor) -> Tensor:
    """Δ = g ∘ (u + v) − u,  with  g = m / n:  what DoRA adds to the output of a frozen layer.

    plain u (..., O), low_rank v (..., O), magnitude m (O,), norm n (O,) -> Δ (..., O). Where n is 0, so is g.
    """
    floats("dora_delta", plain=plain, low_rank=low_rank, magnitude=magnitude, norm=norm)
    at_least_rank("dora_delta", 1, plain=plain)
    same_shape("dora_delta", plain.shape, low_rank=low_rank)
    same_shape("dora_delta", plain.shape[-1:], magnitude=magnitude, norm=norm)
    directed = norm != 0
    factor = torch.where(directed, magnitude / torch.where(directed, norm, 1), 0)
    return factor * (plain + low_rank) - plain
