"""Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013, ICML, for the Nesterov form)."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from byhand.checks import choice, demand, in_range, not_negative
from torch_impl.optim.optimizer import Optimizer


class SGD(Optimizer):
    """θ ← θ − η u,  with  g = ±∇ + λθ,  b ← μ b + (1 − τ) g  and  u = b  (or g + μ b, Nesterov's look-ahead).

    torch.optim.SGD on named tensors; `groups` and the options are those of the NumPy side.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ):
        choice("SGD", (False, True), maximize=maximize)
        options = dict(momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(torch.optim.SGD, params, lr=lr, check=_check, groups=groups, flags={"maximize": maximize}, **options)

    def _keeps(self, options):
        return ("momentum_buffer",) if options["momentum"] else ()


def _check(function: str, *, momentum: float, dampening: float, nesterov: bool, weight_decay: float, lr_scale: float) -> None:
    not_negative(function, momentum=momentum, weight_decay=weight_decay, lr_scale=lr_scale)
    in_range(function, 0, 1, dampening=dampening)
    choice(function, (False, True), nesterov=nesterov)
    look_ahead = not nesterov or (momentum > 0 and dampening == 0)
    demand(function, look_ahead, "momentum > 0 and dampening = 0 for nesterov", momentum=momentum, dampening=dampening)
