"""Learning rates that return to their peak, or rise to it once and fall: torch's schedulers, asked for any step.

What each function computes, and what it does past its end, stands in `numpy_impl.optim.cyclic_schedules`.
"""

from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR

from byhand.checks import choice, demand, in_range, positive, size
from torch_impl.optim.replay import _replay


def cosine_restarts(step: int, *, lr: float, T_0: int, T_mult: int = 1, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 + cos(π k'/T)) / 2,  k' steps after the last restart."""
    size("cosine_restarts", at_least=0, step=step)
    positive("cosine_restarts", lr=lr)
    size("cosine_restarts", T_0=T_0, T_mult=T_mult)
    in_range("cosine_restarts", 0, lr, min_lr=min_lr)
    return _replay(step, lr, CosineAnnealingWarmRestarts, T_0=T_0, T_mult=T_mult, eta_min=min_lr)


def one_cycle(
    step: int,
    *,
    lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> float:
    """η(k) goes from a = η/div_factor up to η, and down to b = a/final_div_factor at step T − 1."""
    size("one_cycle", at_least=0, step=step)
    positive("one_cycle", lr=lr)
    size("one_cycle", total_steps=total_steps)
    in_range("one_cycle", 0, total_steps - 1, step=step)
    choice("one_cycle", (False, True), three_phase=three_phase)
    in_range("one_cycle", 0, 0.5 if three_phase else 1.0, pct_start=pct_start)
    demand("one_cycle", pct_start * total_steps > 1, "pct_start * total_steps > 1", pct_start=pct_start, total_steps=total_steps)
    choice("one_cycle", ("cos", "linear"), anneal_strategy=anneal_strategy)
    positive("one_cycle", div_factor=div_factor, final_div_factor=final_div_factor)
    shape = dict(pct_start=float(pct_start), anneal_strategy=anneal_strategy, three_phase=three_phase, cycle_momentum=False)
    factors = dict(max_lr=lr, div_factor=div_factor, final_div_factor=final_div_factor)
    return _replay(step, lr, OneCycleLR, horizon=total_steps, total_steps=total_steps, **shape, **factors)
