"""Low-rank adaptation (LoRA; Hu et al. 2021, arXiv:2106.09685): a frozen weight moves by a product of two thin matrices."""

import math

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, exact_rank, floats, in_range, same_shape, size
from byhand.noise import Noise
from torch_impl.ops.dropout import dropout as drop


def lora_scaling(r: int, alpha: float, *, rslora: bool = False) -> float:
    """s = α / r,  or  s = α / √r  with rank stabilization (rsLoRA; Kalajdzievski 2023, arXiv:2312.03732);  0 for r = 0."""
    size("lora_scaling", at_least=0, r=r)
    in_range("lora_scaling", 0, 1e30, alpha=alpha)
    if r == 0:
        return 0.0
    return float(alpha) / (math.sqrt(r) if rslora else int(r))


def lora_delta(x: Tensor, lora_A: Tensor, lora_B: Tensor, *, scaling: float, dropout: float = 0.0,
               noise: Noise | None = None) -> Tensor:
    """Δ = s · drop(x) Aᵀ Bᵀ:  what an adapter adds to a frozen x Wᵀ, as if W were W + s · B A.

    x (..., I), lora_A (R, I), lora_B (O, R) -> Δ (..., O). s is multiplied in where Δ is R wide.
    """
    floats("lora_delta", x=x, lora_A=lora_A, lora_B=lora_B)
    at_least_rank("lora_delta", 1, x=x)
    exact_rank("lora_delta", 2, lora_A=lora_A, lora_B=lora_B)
    same_shape("lora_delta", (lora_A.shape[0], x.shape[-1]), lora_A=lora_A)
    same_shape("lora_delta", (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    in_range("lora_delta", -1e30, 1e30, scaling=scaling)
    return F.linear(F.linear(drop(x, p=dropout, noise=noise), lora_A) * scaling, lora_B)
