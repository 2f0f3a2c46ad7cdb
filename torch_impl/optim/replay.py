"""A scheduler of torch.optim.lr_scheduler asked for the learning rate of any step: it is run on an optimizer that trains nothing."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler


def _replay(step: int, lr: float, make: Callable[..., LRScheduler], *, horizon: int | None = None, **options: Any) -> float:
    """The learning rate at `step` of ``make(optimizer, **options)``, which starts from `lr` and can be run for `horizon` steps."""
    length = 1 << int(step).bit_length()  # the next power of two, so that a training asks for few trajectories
    return _trajectory(min(length, horizon or length), lr, make, tuple(options.items()))[step]


@functools.lru_cache(maxsize=64)
def _trajectory(length: int, lr: float, make: Callable[..., LRScheduler], options: tuple[tuple[str, Any], ...]) -> tuple[float, ...]:
    optimizer = torch.optim.SGD([torch.zeros(())], lr=lr)
    scheduler = make(optimizer, **dict(options))
    lrs = [scheduler.get_last_lr()[0]]
    for _ in range(length - 1):
        optimizer.step()
        scheduler.step()
        lrs.append(scheduler.get_last_lr()[0])
    return tuple(map(float, lrs))
