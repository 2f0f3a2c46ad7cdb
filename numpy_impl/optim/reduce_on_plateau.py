"""A learning rate that falls when the loss no longer does."""

import math
from collections.abc import Sequence

from byhand.checks import choice, demand, in_range, not_negative, positive, size


def reduce_on_plateau(
    losses: Sequence[float],
    *,
    lr: float,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    mode: str = "min",
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> float:
    """η ← max(γη, η_min)  whenever more than `patience` losses in a row were no better than the best one before.

    A loss is better if it lies below best · (1 − threshold) ("rel") or best − threshold ("abs"); for mode "max", above best ·
    (1 + threshold) or best + threshold. After a reduction, `cooldown` losses are not counted.

    A pure function of the history, so that nothing has to be saved with a run: keep the losses.

    Parameters
    ----------
    losses : [float, …]    all so far, the oldest first; NaN is never better
    lr : float             η > 0, at the start
    factor : float         γ in [0, 1)
    patience : int         ≥ 0
    threshold : float      ≥ 0
    threshold_mode : str   "rel" or "abs"
    mode : str             "min", or "max" if higher is better
    cooldown : int         ≥ 0
    min_lr : float         η_min in [0, η]

    Returns
    -------
    lr : float   after these losses; `lr` itself after none

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [reduce_on_plateau([3.0, 2.0, 2.0, 2.0][:n], lr=1.0, factor=0.5, patience=1) for n in range(5)]
    [1.0, 1.0, 1.0, 1.0, 0.5]
    """
    demand("reduce_on_plateau", all(hasattr(loss, "__float__") for loss in losses), "losses as numbers", losses=losses)
    positive("reduce_on_plateau", lr=lr)
    in_range("reduce_on_plateau", 0, 1, factor=factor)
    demand("reduce_on_plateau", factor < 1, "factor < 1", factor=factor)
    size("reduce_on_plateau", at_least=0, patience=patience, cooldown=cooldown)
    not_negative("reduce_on_plateau", threshold=threshold)
    choice("reduce_on_plateau", ("rel", "abs"), threshold_mode=threshold_mode)
    choice("reduce_on_plateau", ("min", "max"), mode=mode)
    in_range("reduce_on_plateau", 0, lr, min_lr=min_lr)

    change = -threshold if mode == "min" else threshold
    best, bad, cooling = math.inf if mode == "min" else -math.inf, 0, 0
    for loss in map(float, losses):
        bar = best * (1 + change) if threshold_mode == "rel" else best + change
        if loss < bar if mode == "min" else loss > bar:
            best, bad = loss, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            lr, bad, cooling = max(lr * factor, min_lr), 0, cooldown
    return float(lr)
