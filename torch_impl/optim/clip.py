"""Clipping gradients: by their global norm (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063), and entry by entry."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from byhand.checks import demand, floats, positive


class Clipped(NamedTuple):
    """grads : dict of name -> tensor;  norm : () the global norm before clipping"""

    grads: dict[str, Tensor]
    norm: Tensor


def global_norm(grads: Mapping[str, Tensor]) -> Tensor:
    """‖g‖ = √(Σ g²)  over all entries of all tensors, as if they were one vector; () on the first tensor's device."""
    _check("global_norm", grads)
    return get_total_norm(grads.values()) if grads else torch.zeros((), dtype=torch.float32)


def clip_by_norm(grads: Mapping[str, Tensor], *, max_norm: float) -> Clipped:
    """g · min(1, max_norm / (‖g‖ + 10⁻⁶)); untouched if the norm is NaN or infinite.

    torch.nn.utils.clip_grad_norm_ without its writing in place; the norm never leaves the device, so nothing waits for it.
    """
    positive("clip_by_norm", max_norm=max_norm)
    _check("clip_by_norm", grads)
    norm = global_norm(grads)
    scale = torch.where(torch.isfinite(norm), torch.clamp(max_norm / (norm + 1e-6), max=1.0), 1.0)
    return Clipped({name: (grad * scale.to(grad.device)).to(grad.dtype) for name, grad in grads.items()}, norm)


def clip_by_value(grads: Mapping[str, Tensor], *, limit: float) -> dict[str, Tensor]:
    """min(max(g, −limit), limit), entry by entry."""
    positive("clip_by_value", limit=limit)
    _check("clip_by_value", grads)
    return {name: torch.clamp(grad, -limit, limit) for name, grad in grads.items()}


def _check(function: str, grads: Mapping[str, Tensor]) -> None:
    demand(function, isinstance(grads, Mapping), "grads as a dict of arrays by name", grads=grads)
    for name, grad in grads.items():
        floats(function, **{f"grads[{name!r}]": grad})
