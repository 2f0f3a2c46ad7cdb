"""Where an adapter may start instead of at zero: from what matters most in the weight, or from what quantization loses of it.

Everything is computed in float32 at least, and comes back in the weight's dtype.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import choice, demand, exact_rank, floats, not_negative, positive, size
from torch_impl.finetune._svd import truncated_svd
from torch_impl.quantize.four_bit import Kind, dequantize_4bit, quantize_4bit


class Start(NamedTuple):
    """An adapter's two factors, lora_A (r, in) and lora_B (out, r), and the weight (out, in) that takes the place of the base's."""

    lora_A: Tensor
    lora_B: Tensor
    weight: Tensor


@torch.no_grad()
def pissa(weight: Tensor, *, r: int, scaling: float) -> Start:
    """A = √(S/s) · Vᵀ,  B = U · √(S/s),  base = W − s · B · A,  from the r largest singular values of W = U · diag(S) · Vᵀ."""
    scaling = _check("pissa", weight, r, scaling)
    wide = _wide(weight)
    return _with_rest(*_balanced(wide, r, scaling), wide, scaling, weight)


@torch.no_grad()
def olora(weight: Tensor, *, r: int, scaling: float) -> Start:
    """A = the first r rows of R,  B = the first r columns of Q,  base = W − s · B · A,  where W = Q · R, the diagonal of R ≥ 0."""
    scaling = _check("olora", weight, r, scaling)
    wide = _wide(weight)
    q, upper = torch.linalg.qr(wide)
    negative = upper.diagonal() < 0
    q, upper = torch.where(negative, -q, q), torch.where(negative[:, None], -upper, upper)
    missing = max(r - len(upper), 0)
    lora_A, lora_B = F.pad(upper[:r], (0, 0, 0, missing)), F.pad(q[:, :r], (0, missing))
    return _with_rest(lora_A, lora_B, wide, scaling, weight)


@torch.no_grad()
def loftq(weight: Tensor, *, r: int, scaling: float, kind: Kind = "nf4", block: int = 64, steps: int = 1) -> Start:
    """`steps` times:  Q = quantized(base),  s · B · A = the best approximation of W − Q of rank r,  base = W − s · B · A.

    The weight that comes back is what the last step quantized, in full precision.
    """
    scaling = _check("loftq", weight, r, scaling)
    choice("loftq", ("nf4", "fp4"), kind=kind)
    size("loftq", block=block, steps=steps)
    wide = _wide(weight)
    lora_A, lora_B = wide.new_zeros(r, wide.shape[1]), wide.new_zeros(len(wide), r)
    for _ in range(steps):
        base = wide - scaling * (lora_B @ lora_A)
        codes, absmax = quantize_4bit(base, kind=kind, block=block)
        quantized = dequantize_4bit(codes, absmax=absmax, shape=tuple(base.shape), kind=kind, block=block, dtype=base.dtype)
        lora_A, lora_B = _balanced(wide - quantized, r, scaling)
    return _start(lora_A, lora_B, base, weight)


def _balanced(matrix: Tensor, r: int, scaling: float) -> tuple[Tensor, Tensor]:
    u, s, vt = truncated_svd(matrix, r)
    root = (s / scaling).sqrt()
    return root[:, None] * vt, u * root


def _wide(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _with_rest(lora_A: Tensor, lora_B: Tensor, wide: Tensor, scaling: float, weight: Tensor) -> Start:
    """A and B in the weight's dtype, and what these, rounded as they are, leave of it."""
    lora_A, lora_B = lora_A.to(weight.dtype), lora_B.to(weight.dtype)
    return _start(lora_A, lora_B, wide - scaling * (lora_B.to(wide.dtype) @ lora_A.to(wide.dtype)), weight)


def _start(lora_A: Tensor, lora_B: Tensor, base: Tensor, weight: Tensor) -> Start:
    return Start(lora_A.to(weight.dtype), lora_B.to(weight.dtype), base.to(weight.dtype))


def _check(who: str, weight: Tensor, r: int, scaling: float) -> float:
    """scaling as a Python number, if all is well: a NumPy scalar would widen what it multiplies."""
    floats(who, weight=weight)
    exact_rank(who, 2, weight=weight)
    demand(who, bool(weight.isfinite().all()), "a finite weight", weight=weight)
    size(who, at_least=0, r=r)
    (positive if r else not_negative)(who, scaling=scaling)
    return float(scaling)
