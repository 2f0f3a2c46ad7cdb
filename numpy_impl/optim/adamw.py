"""AdamW: Adam with weight decay that does not pass through the moments (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, fractions, not_negative
from numpy_impl.optim.optimizer import Optimizer


class AdamW(Optimizer):
    """θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε),  with  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²  for the gradient g.

    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ) at step t: both moments start at zero, and after t steps their weights add up to
    1 − βᵗ only. Every weight shrinks by the same factor 1 − ηλ, however large its gradients are; in `Adam` the decay is part of g.

    Parameters
    ----------
    params : dict of name -> array, changed in place
    lr : float            η ≥ 0
    betas : (β₁, β₂)      decay of the two moments, in [0, 1)
    eps : float           ε ≥ 0, outside the root
    weight_decay : float  λ ≥ 0, per step and unit of learning rate
    maximize : bool       ascend: g is the gradient with its sign turned; the decay stays a decay
    groups : list of dict, optional
        ``{"pattern": "*.bias", OPTION: VALUE, …}`` with betas, eps, weight_decay or lr_scale; the first match wins

    Raises
    ------
    ValueError   if an option is out of range, a group has an unknown key, or its pattern matches nothing

    Examples
    --------
    >>> params = {"w": np.array([1.0, 2.0, 3.0]), "bias": np.array([1.0])}
    >>> optimizer = AdamW(params, lr=0.1, weight_decay=0.1, groups=[{"pattern": "bias", "weight_decay": 0.0}])
    >>> optimizer.step({"w": np.array([1e-3, -5.0, 0.0]), "bias": np.array([2.0])})
    >>> params["w"].round(4), params["bias"].round(4)
    (array([0.89, 2.08, 2.97]), array([0.9]))
    """

    def __init__(
        self,
        params: Mapping[str, NDArray],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ):
        choice("AdamW", (False, True), maximize=maximize)
        self._sign = -1.0 if maximize else 1.0
        super().__init__(params, lr=lr, check=_check, groups=groups, betas=betas, eps=eps, weight_decay=weight_decay)

    def _keeps(self, options):
        return "exp_avg", "exp_avg_sq"

    def _update(self, options, lr, param, grad, m, v, scratch):
        beta1, beta2 = options["betas"]
        # θ ← (1 − ηλ) θ
        param *= 1 - lr * options["weight_decay"]
        # m ← β₁ m + (1 − β₁) g
        m *= beta1
        m += np.multiply(grad, self._sign * (1 - beta1), out=scratch)
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
