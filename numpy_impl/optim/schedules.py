"""Learning rates that only fall: pure functions of the step.

`step` counts updates from 0: the value at step k is the learning rate of update k + 1. Nothing is remembered between calls, so a
resumed run asks for the next step and goes on. What rises first stands in `warmup_schedules`, what returns in `cyclic_schedules`.
"""

import math
from collections.abc import Sequence

from byhand.checks import demand, in_range, positive, size


def constant(step: int, *, lr: float) -> float:
    """η(k) = η.

    Parameters
    ----------
    step : int   k ≥ 0
    lr : float   η > 0

    Returns
    -------
    lr : float

    Raises
    ------
    ValueError   if step is negative or no integer, or lr not positive and finite

    Examples
    --------
    >>> constant(7, lr=0.1)
    0.1
    """
    size("constant", at_least=0, step=step)
    positive("constant", lr=lr)
    return float(lr)


def step_decay(step: int, *, lr: float, every: int, factor: float = 0.1) -> float:
    """η(k) = η · γ^⌊k / every⌋.

    Parameters
    ----------
    step : int       k ≥ 0
    lr : float       η > 0, until the first decay
    every : int      steps between two decays, ≥ 1
    factor : float   γ in [0, 1]

    Returns
    -------
    lr : float   there is no end: it goes on falling

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [step_decay(k, lr=1.0, every=2, factor=0.5) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    size("step_decay", at_least=0, step=step)
    positive("step_decay", lr=lr)
    size("step_decay", every=every)
    in_range("step_decay", 0, 1, factor=factor)
    return float(lr * factor ** (step // every))


def multi_step(step: int, *, lr: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """η(k) = η · γ^n,  with n the number of milestones ≤ k: at a milestone the decay has happened.

    Parameters
    ----------
    step : int             k ≥ 0
    lr : float             η > 0, before the first milestone
    milestones : [int, …]  steps, increasing
    factor : float         γ in [0, 1]

    Returns
    -------
    lr : float   after the last milestone it stays

    Raises
    ------
    ValueError   if an argument is out of its range, or milestones do not increase

    Examples
    --------
    >>> [multi_step(k, lr=1.0, milestones=[1, 3], factor=0.5) for k in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    size("multi_step", at_least=0, step=step)
    positive("multi_step", lr=lr)
    for milestone in milestones:
        size("multi_step", at_least=0, milestone=milestone)
    demand("multi_step", sorted(set(milestones)) == list(milestones), "milestones that increase", milestones=list(milestones))
    in_range("multi_step", 0, 1, factor=factor)
    return float(lr * factor ** sum(milestone <= step for milestone in milestones))


def exponential(step: int, *, lr: float, factor: float) -> float:
    """η(k) = η · γᵏ.

    Parameters
    ----------
    step : int       k ≥ 0
    lr : float       η > 0, at step 0
    factor : float   γ in [0, 1]

    Returns
    -------
    lr : float   there is no end: it goes on falling

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [exponential(k, lr=1.0, factor=0.5) for k in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    size("exponential", at_least=0, step=step)
    positive("exponential", lr=lr)
    in_range("exponential", 0, 1, factor=factor)
    return float(lr * factor**step)


def linear(step: int, *, lr: float, total_steps: int, start_factor: float = 1.0, end_factor: float = 0.0) -> float:
    """η(k) = η · ((1 − s) a + s b)  with s = min(k/T, 1):  a straight line from factor a at step 0 to factor b at step T.

    Parameters
    ----------
    step : int             k ≥ 0
    lr : float             η > 0
    total_steps : int      T ≥ 1
    start_factor : float   a in (0, 1]
    end_factor : float     b in [0, 1]; above a the line rises

    Returns
    -------
    lr : float   from step T on it stays at η · b

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [linear(k, lr=1.0, total_steps=4) for k in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    size("linear", at_least=0, step=step)
    positive("linear", lr=lr)
    size("linear", total_steps=total_steps)
    positive("linear", start_factor=start_factor)
    in_range("linear", 0, 1, start_factor=start_factor, end_factor=end_factor)
    share = min(step, total_steps) / total_steps
    return float(lr * ((1 - share) * start_factor + share * end_factor))


def polynomial(step: int, *, lr: float, total_steps: int, power: float = 1.0, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 − k/T)^p.

    Parameters
    ----------
    step : int          k ≥ 0
    lr : float          η > 0, at step 0
    total_steps : int   T ≥ 1
    power : float       p > 0; 1 is a straight line, 2 falls fast and then slowly
    min_lr : float      η_min in [0, η], at step T

    Returns
    -------
    lr : float   from step T on it stays at η_min

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [polynomial(k, lr=1.0, total_steps=4, power=2) for k in (0, 2, 4, 9)]
    [1.0, 0.25, 0.0, 0.0]
    """
    size("polynomial", at_least=0, step=step)
    positive("polynomial", lr=lr)
    size("polynomial", total_steps=total_steps)
    positive("polynomial", power=power)
    in_range("polynomial", 0, lr, min_lr=min_lr)
    return float(min_lr + (lr - min_lr) * (1 - min(step, total_steps) / total_steps) ** power)


def cosine(step: int, *, lr: float, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 + cos(π k/T)) / 2,  half a wave (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts).

    Parameters
    ----------
    step : int          k ≥ 0
    lr : float          η > 0, at step 0
    total_steps : int   T ≥ 1
    min_lr : float      η_min in [0, η], at step T

    Returns
    -------
    lr : float   after step T the wave rises again, to η at step 2T, as torch's does: end the training at T

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [round(cosine(k, lr=1.0, total_steps=4), 4) for k in range(6)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.1464]
    """
    size("cosine", at_least=0, step=step)
    positive("cosine", lr=lr)
    size("cosine", total_steps=total_steps)
    in_range("cosine", 0, lr, min_lr=min_lr)
    return float(min_lr + (lr - min_lr) * (1 + math.cos(math.pi * step / total_steps)) / 2)
