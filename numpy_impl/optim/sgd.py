"""Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013, ICML, for the Nesterov form)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, in_range, not_negative
from numpy_impl.optim.optimizer import Optimizer


class SGD(Optimizer):
    """θ ← θ − η u,  with  g = ±∇ + λθ,  b ← μ b + (1 − τ) g  and  u = b  (or g + μ b, Nesterov's look-ahead).

    At the first step b ← g, without dampening; without momentum u = g.

    Parameters
    ----------
    params : dict of name -> array, changed in place
    lr : float            η ≥ 0
    momentum : float      μ ≥ 0
    dampening : float     τ in [0, 1]
    nesterov : bool       look ahead along b; needs μ > 0 and τ = 0
    weight_decay : float  λ ≥ 0, an L2 penalty λ/2 · ‖θ‖² in the loss
    maximize : bool       ascend: the gradient's sign is turned, the penalty's is not
    groups : list of dict, optional
        ``{"pattern": "*.bias", OPTION: VALUE, …}`` with momentum, dampening, nesterov, weight_decay or lr_scale; the first match wins

    Raises
    ------
    ValueError   if an option is out of range, a group has an unknown key, or its pattern matches nothing

    Examples
    --------
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> optimizer = SGD(params, lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.step({"w": np.array([1.0, 0.0])})
    >>> params["w"].round(4)
    array([0.71, 2.  ])
    """

    _scratch = 2

    def __init__(
        self,
        params: Mapping[str, NDArray],
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
        self._maximize = maximize
        options = dict(momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(params, lr=lr, check=_check, groups=groups, **options)

    def _keeps(self, options):
        return ("momentum_buffer",) if options["momentum"] else ()

    def _update(self, options, lr, param, grad, *arrays):
        *kept, g, scratch = arrays
        # u = g = ±∇ + λθ
        u = np.negative(grad, out=g) if self._maximize else grad
        if options["weight_decay"]:                  # not for λ = 0: an infinite θ would give 0 · ∞ = NaN
            u = np.add(u, np.multiply(param, options["weight_decay"], out=scratch), out=g)
        for b in kept:                               # one buffer with momentum, none without
            # b ← μ b + (1 − τ) g, at the first step b ← g
            if self.steps == 1:
                b[...] = u
            else:
                b *= options["momentum"]
                b += np.multiply(u, 1 - options["dampening"], out=scratch) if options["dampening"] else u
            # u = b, or g + μ b
            u = np.add(u, np.multiply(b, options["momentum"], out=scratch), out=g) if options["nesterov"] else b
        # θ ← θ − η u
        param -= np.multiply(u, lr, out=scratch)


def _check(function: str, *, momentum: float, dampening: float, nesterov: bool, weight_decay: float, lr_scale: float) -> None:
    not_negative(function, momentum=momentum, weight_decay=weight_decay, lr_scale=lr_scale)
    in_range(function, 0, 1, dampening=dampening)
    choice(function, (False, True), nesterov=nesterov)
    look_ahead = not nesterov or (momentum > 0 and dampening == 0)
    demand(function, look_ahead, "momentum > 0 and dampening = 0 for nesterov", momentum=momentum, dampening=dampening)
