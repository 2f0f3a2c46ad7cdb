"""AdamW: Adam with weight decay that does not pass through the moments (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from byhand.checks import choice, fractions, not_negative
from torch_impl.optim.optimizer import Optimizer


class AdamW(Optimizer):
    """θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε),  with  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²  for the gradient g.

    torch.optim.AdamW on named tensors; `groups` and the options are those of the NumPy side.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ):
        choice("AdamW", (False, True), maximize=maximize)
        options = dict(betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(torch.optim.AdamW, params, lr=lr, check=_check, groups=groups, flags={"maximize": maximize}, **options)

    def _keeps(self, options):
        return "exp_avg", "exp_avg_sq"


def _check(function: str, *, betas: tuple[float, float], eps: float, weight_decay: float, lr_scale: float) -> None:
    fractions(function, 2, betas=betas)
    not_negative(function, eps=eps, weight_decay=weight_decay, lr_scale=lr_scale)
