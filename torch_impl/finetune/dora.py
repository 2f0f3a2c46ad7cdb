"""Weight-decomposed low-rank adaptation (DoRA; Liu et al. 2024, arXiv:2402.09353): a row's length is trained apart from its direction."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from byhand.checks import at_least_rank, exact_rank, floats, in_range, same_shape

Strips = Callable[[], Iterable[tuple[slice, Tensor]]]


def dora_norm(lora_A: Tensor, lora_B: Tensor, *, weight: Tensor | Strips, scaling: float) -> Tensor:
    """n_o = ‖V_o‖ = √(Σ_i V_oi²),  with  V = W + s · B A:  the length of every row of the moved weight.

    lora_A (R, I), lora_B (O, R), weight (O, I), a constant, or a function that yields (rows, W[rows]) from the first row to the last
    -> n (O,). A row of zeros gets no gradient.
    """
    whole = None if callable(weight) else weight
    floats("dora_norm", lora_A=lora_A, lora_B=lora_B, weight=whole)
    exact_rank("dora_norm", 2, lora_A=lora_A, lora_B=lora_B, weight=whole)
    same_shape("dora_norm", (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    same_shape("dora_norm", (lora_B.shape[0], lora_A.shape[1]), weight=whole)
    in_range("dora_norm", -1e30, 1e30, scaling=scaling)
    scaled, strips = lora_A * float(scaling), weight() if callable(weight) else [(slice(None), weight)]
    norms = [torch.linalg.vector_norm(torch.addmm(part, lora_B[rows], scaled), dim=1) for rows, part in strips]
    return norms[0] if len(norms) == 1 else torch.cat(norms)


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
