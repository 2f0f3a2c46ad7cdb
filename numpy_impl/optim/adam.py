"""Adam: steps scaled by running moments of the gradient (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, fractions, not_negative
from numpy_impl.optim.optimizer import Optimizer


class Adam(Optimizer):
    """θ ← θ − η m̂ / (√v̂ + ε),  with  g = ±∇ + λθ,  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g².

    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) at step t: both moments start at zero, and after t steps their weights add up to
    1 − βᵗ only. The weight decay is an L2 penalty in the gradient, so it is scaled by 1/√v̂ too; `AdamW` keeps the two apart.

    Parameters
    ----------
    params : dict of name -> array, changed in place
    lr : float            η ≥ 0
    betas : (β₁, β₂)      decay of the two moments, in [0, 1)
    eps : float           ε ≥ 0, outside the root
    weight_decay : float  λ ≥ 0, an L2 penalty λ/2 · ‖θ‖² in the loss
    maximize : bool       ascend: the gradient's sign is turned, the penalty's is not
    groups : list of dict, optional
        ``{"pattern": "*.bias", OPTION: VALUE, …}`` with betas, eps, weight_decay or lr_scale; the first match wins

    Raises
    ------
    ValueError   if an option is out of range, a group has an unknown key, or its pattern matches nothing

    Examples
    --------
    >>> params = {"w": np.array([1.0, 2.0, 3.0])}
    >>> optimizer = Adam(params, lr=0.1)
    >>> optimizer.step({"w": np.array([1e-3, -5.0, 0.0])})
    >>> params["w"].round(4)
    array([0.9, 2.1, 3. ])
    """

    _scratch = 2

    def __init__(
        self,
        params: Mapping[str, NDArray],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ):
        choice("Adam", (False, True), maximize=maximize)
        self._maximize = maximize
        super().__init__(params, lr=lr, check=_check, groups=groups, betas=betas, eps=eps, weight_decay=weight_decay)

    def _keeps(self, options):
        return "exp_avg", "exp_avg_sq"

    def _update(self, options, lr, param, grad, m, v, g, scratch):
        beta1, beta2 = options["betas"]
        # g = ±∇ + λθ
        if self._maximize:
            grad = np.negative(grad, out=g)
        if options["weight_decay"]:                  # not for λ = 0: an infinite θ would give 0 · ∞ = NaN
            grad = np.add(grad, np.multiply(param, options["weight_decay"], out=scratch), out=g)
        # m ← β₁ m + (1 − β₁) g
        m *= beta1
        m += np.multiply(grad, 1 - beta1, out=scratch)
        # v ← β₂ v + (1 − β₂) g²
        v *= beta2
        v += np.multiply(np.multiply(grad, 1 - beta2, out=scratch), grad, out=scratch)
        # θ ← θ − η m̂ / (√v̂ + ε)
        # Both corrections are numbers: with c = 1 − βᵗ, m̂ / (√v̂ + ε) = (√c₂ / c₁) · m / (√v + ε √c₂), which saves a pass over the array.
        c1, root_c2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        denominator = np.sqrt(v, out=scratch)
        denominator += options["eps"] * root_c2
        update = np.divide(m, denominator, out=scratch)
        update *= lr * root_c2 / c1
        param -= update


def _check(function: str, *, betas: tuple[float, float], eps: float, weight_decay: float, lr_scale: float) -> None:
    fractions(function, 2, betas=betas)
    not_negative(function, eps=eps, weight_decay=weight_decay, lr_scale=lr_scale)
