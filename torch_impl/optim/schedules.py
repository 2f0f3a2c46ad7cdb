"""Learning rates that only fall: torch's schedulers, asked for any step.

What each function computes, and what it does past its end, stands in `numpy_impl.optim.schedules`.
"""

from collections.abc import Sequence

from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR

from byhand.checks import demand, in_range, positive, size
from torch_impl.optim.replay import _replay


def constant(step: int, *, lr: float) -> float:
    """η(k) = η."""
    size("constant", at_least=0, step=step)
    positive("constant", lr=lr)
    return _replay(step, lr, ConstantLR, factor=1.0)


def step_decay(step: int, *, lr: float, every: int, factor: float = 0.1) -> float:
    """η(k) = η · γ^⌊k / every⌋."""
    size("step_decay", at_least=0, step=step)
    positive("step_decay", lr=lr)
    size("step_decay", every=every)
    in_range("step_decay", 0, 1, factor=factor)
    return _replay(step, lr, StepLR, step_size=every, gamma=factor)


def multi_step(step: int, *, lr: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """η(k) = η · γ^n,  with n the number of milestones ≤ k: at a milestone the decay has happened."""
    size("multi_step", at_least=0, step=step)
    positive("multi_step", lr=lr)
    for milestone in milestones:
        size("multi_step", at_least=0, milestone=milestone)
    demand("multi_step", sorted(set(milestones)) == list(milestones), "milestones that increase", milestones=list(milestones))
    in_range("multi_step", 0, 1, factor=factor)
    return _replay(step, lr, MultiStepLR, milestones=tuple(milestones), gamma=factor)


def exponential(step: int, *, lr: float, factor: float) -> float:
    """η(k) = η · γᵏ."""
    size("exponential", at_least=0, step=step)
    positive("exponential", lr=lr)
    in_range("exponential", 0, 1, factor=factor)
    return _replay(step, lr, ExponentialLR, gamma=factor)


def linear(step: int, *, lr: float, total_steps: int, start_factor: float = 1.0, end_factor: float = 0.0) -> float:
    """η(k) = η · ((1 − s) a + s b)  with s = min(k/T, 1):  a straight line from factor a at step 0 to factor b at step T."""
    size("linear", at_least=0, step=step)
    positive("linear", lr=lr)
    size("linear", total_steps=total_steps)
    positive("linear", start_factor=start_factor)
    in_range("linear", 0, 1, start_factor=start_factor, end_factor=end_factor)
    if end_factor == 0:  # LinearLR multiplies from step to step and ends near 0, not at it; PolynomialLR ends at it
        return _replay(step, lr * start_factor, PolynomialLR, total_iters=total_steps, power=1.0)
    return _replay(step, lr, LinearLR, total_iters=total_steps, start_factor=start_factor, end_factor=end_factor)


def polynomial(step: int, *, lr: float, total_steps: int, power: float = 1.0, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 − k/T)^p."""
    size("polynomial", at_least=0, step=step)
    positive("polynomial", lr=lr)
    size("polynomial", total_steps=total_steps)
    positive("polynomial", power=power)
    in_range("polynomial", 0, lr, min_lr=min_lr)
    return min_lr + _replay(step, lr - min_lr, PolynomialLR, total_iters=total_steps, power=power)


def cosine(step: int, *, lr: float, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 + cos(π k/T)) / 2,  half a wave; it rises again after step T."""
    size("cosine", at_least=0, step=step)
    positive("cosine", lr=lr)
    size("cosine", total_steps=total_steps)
    in_range("cosine", 0, lr, min_lr=min_lr)
    return _replay(step, lr, CosineAnnealingLR, T_max=total_steps, eta_min=min_lr)
