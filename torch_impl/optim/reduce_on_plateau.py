"""A learning rate that falls when the loss no longer does: torch's scheduler, run on a history of losses."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from byhand.checks import choice, demand, in_range, not_negative, positive, size


def reduce_on_plateau(
    losses: Sequence[float],
    *,
    lr: float,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    mode: Literal["min", "max"] = "min",
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> float:
    """η ← max(γη, η_min)  whenever more than `patience` losses in a row were no better than the best one before.

    torch's own `eps`, below which a change is not made, is 0 here.
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
    optimizer = torch.optim.SGD([torch.zeros(())], lr=lr)
    scheduler = ReduceLROnPlateau(
        optimizer, mode, factor, patience, threshold=threshold, threshold_mode=threshold_mode, cooldown=cooldown, min_lr=min_lr, eps=0.0
    )
    for loss in losses:
        scheduler.step(loss)
    return float(optimizer.param_groups[0]["lr"])
