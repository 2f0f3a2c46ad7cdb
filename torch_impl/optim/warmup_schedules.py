"""Learning rates that first rise: torch's schedulers one after the other (SequentialLR), asked for any step.

What each function computes, and what it does past its end, stands in `numpy_impl.optim.warmup_schedules`.
"""

import math
import sys
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from byhand.checks import choice, in_range, positive, size
from torch_impl.optim.replay import _replay


def warmup_constant(step: int, *, lr: float, warmup_steps: int) -> float:
    """η(k) = η · k/W  for k < W,  then η."""
    size("warmup_constant", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_constant", lr=lr)
    return _replay(step, lr, _warmup_constant, warmup_steps=warmup_steps)


def _warmup_constant(optimizer: Optimizer, warmup_steps: int) -> LRScheduler:
    return _after_warmup(optimizer, warmup_steps, ConstantLR(optimizer, factor=1.0))


def warmup_linear(step: int, *, lr: float, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η · k/W  for k < W,  then η_min + (η − η_min) · (T − k) / (T − W)."""
    size("warmup_linear", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_linear", lr=lr)
    size("warmup_linear", total_steps=total_steps)
    in_range("warmup_linear", 0, total_steps, warmup_steps=warmup_steps)
    in_range("warmup_linear", 0, lr, min_lr=min_lr)
    return _replay(step, lr, _warmup_linear, warmup_steps=warmup_steps, falling=total_steps - warmup_steps, end_factor=min_lr / lr)


def _warmup_linear(optimizer: Optimizer, warmup_steps: int, falling: int, end_factor: float) -> LRScheduler:
    if falling:
        after: LRScheduler = LinearLR(optimizer, start_factor=1.0, end_factor=end_factor, total_iters=falling)
    else:  # a line without length: only its end is left
        after = ConstantLR(optimizer, factor=end_factor, total_iters=sys.maxsize)
    return _after_warmup(optimizer, warmup_steps, after)


def warmup_cosine(step: int, *, lr: float, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η · k/W  for k < W,  then η_min + (η − η_min) · (1 + cos(π (k − W)/(T − W))) / 2; it rises again after step T."""
    size("warmup_cosine", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_cosine", lr=lr)
    size("warmup_cosine", total_steps=total_steps)
    in_range("warmup_cosine", 0, total_steps, warmup_steps=warmup_steps)
    in_range("warmup_cosine", 0, lr, min_lr=min_lr)
    return _replay(step, lr, _warmup_cosine, warmup_steps=warmup_steps, falling=max(total_steps - warmup_steps, 1), min_lr=min_lr)


def _warmup_cosine(optimizer: Optimizer, warmup_steps: int, falling: int, min_lr: float) -> LRScheduler:
    return _after_warmup(optimizer, warmup_steps, CosineAnnealingLR(optimizer, T_max=falling, eta_min=min_lr))


def inverse_sqrt(step: int, *, lr: float, warmup_steps: int, timescale: int | None = None) -> float:
    """η(k) = η · k/W  for k < W,  then η · √(τ / (k − W + τ)); τ is W if not given (10,000 if W is 0)."""
    size("inverse_sqrt", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("inverse_sqrt", lr=lr)
    tau = timescale if timescale is not None else warmup_steps or 10_000
    size("inverse_sqrt", timescale=tau)
    return _replay(step, lr, _inverse_sqrt, warmup_steps=warmup_steps, tau=tau)


def _inverse_sqrt(optimizer: Optimizer, warmup_steps: int, tau: int) -> LRScheduler:
    return _after_warmup(optimizer, warmup_steps, LambdaLR(optimizer, lambda since: (1 + since / tau) ** -0.5))


def warmup_stable_decay(
    step: int,
    *,
    lr: float,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr: float = 0.0,
) -> float:
    """η(k) = η_min + (η − η_min) · f(x):  x rises from 0 to 1 over W steps, stays for S, falls back to 0 over D."""
    size("warmup_stable_decay", at_least=0, step=step, warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    positive("warmup_stable_decay", lr=lr)
    choice("warmup_stable_decay", ("linear", "cosine", "1-sqrt"), warmup_type=warmup_type, decay_type=decay_type)
    in_range("warmup_stable_decay", 0, lr, min_lr=min_lr)
    phases = dict(warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    above = _replay(step, lr - min_lr, _warmup_stable_decay, **phases, warmup_type=warmup_type, decay_type=decay_type)
    return min_lr + above


def _warmup_stable_decay(
    optimizer: Optimizer, warmup_steps: int, stable_steps: int, decay_steps: int, warmup_type: str, decay_type: str
) -> LRScheduler:
    rise, fall = _RISES[warmup_type], _FALLS[decay_type]
    schedulers = [
        LambdaLR(optimizer, lambda step: rise(step / warmup_steps) if warmup_steps else 0.0),
        ConstantLR(optimizer, factor=1.0),
        LambdaLR(optimizer, lambda since: fall(since / decay_steps) if since < decay_steps else 0.0),
    ]
    return SequentialLR(optimizer, schedulers, milestones=[warmup_steps, warmup_steps + stable_steps])


_RISES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: 0.5 - 0.5 * math.cos(math.pi * x),
    "1-sqrt": lambda x: 1 - math.sqrt(max(1 - x, 0)),
}
_FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: 0.5 + 0.5 * math.cos(math.pi * x),
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


def _after_warmup(optimizer: Optimizer, warmup_steps: int, after: LRScheduler) -> LRScheduler:
    """k/W of the learning rate for k < W, then `after`. (LinearLR cannot start at 0.)"""
    rise = LambdaLR(optimizer, lambda step: step / max(warmup_steps, 1))
    return SequentialLR(optimizer, [rise, after], milestones=[warmup_steps])
