"""Learning rates that first rise: pure functions of the step, equal to those of transformers.get_scheduler.

`step` counts updates from 0, and a linear warm-up over W steps is k/W of the peak at step k: update 1 changes nothing, and step W is
the first at the peak.
"""

import math

from byhand.checks import choice, in_range, positive, size


def warmup_constant(step: int, *, lr: float, warmup_steps: int) -> float:
    """η(k) = η · k/W  for k < W,  then η.

    Parameters
    ----------
    step : int           k ≥ 0
    lr : float           η > 0, from step W on
    warmup_steps : int   W ≥ 0

    Returns
    -------
    lr : float

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [warmup_constant(k, lr=1.0, warmup_steps=2) for k in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    size("warmup_constant", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_constant", lr=lr)
    return float(lr * step / warmup_steps if step < warmup_steps else lr)


def warmup_linear(step: int, *, lr: float, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η · k/W  for k < W,  then η_min + (η − η_min) · (T − k) / (T − W).

    Parameters
    ----------
    step : int           k ≥ 0
    lr : float           η > 0, at step W
    warmup_steps : int   W in [0, T]
    total_steps : int    T ≥ 1
    min_lr : float       η_min in [0, η], at step T

    Returns
    -------
    lr : float   from step T on it stays at η_min (also if W = T)

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [warmup_linear(k, lr=1.0, warmup_steps=2, total_steps=4) for k in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    size("warmup_linear", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_linear", lr=lr)
    size("warmup_linear", total_steps=total_steps)
    in_range("warmup_linear", 0, total_steps, warmup_steps=warmup_steps)
    in_range("warmup_linear", 0, lr, min_lr=min_lr)
    if step < warmup_steps:
        return float(lr * step / warmup_steps)
    if step >= total_steps:
        return float(min_lr)
    return float(min_lr + (lr - min_lr) * (total_steps - step) / (total_steps - warmup_steps))


def warmup_cosine(step: int, *, lr: float, warmup_steps: int, total_steps: int, min_lr: float = 0.0) -> float:
    """η(k) = η · k/W  for k < W,  then η_min + (η − η_min) · (1 + cos(π (k − W)/(T − W))) / 2.

    Parameters
    ----------
    step : int           k ≥ 0
    lr : float           η > 0, at step W
    warmup_steps : int   W in [0, T]; W = T counts as T − W = 1
    total_steps : int    T ≥ 1
    min_lr : float       η_min in [0, η], at step T

    Returns
    -------
    lr : float   after step T the wave rises again, as in torch and transformers: end the training at T

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [round(warmup_cosine(k, lr=1.0, warmup_steps=2, total_steps=6), 4) for k in range(8)]
    [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.1464]
    """
    size("warmup_cosine", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("warmup_cosine", lr=lr)
    size("warmup_cosine", total_steps=total_steps)
    in_range("warmup_cosine", 0, total_steps, warmup_steps=warmup_steps)
    in_range("warmup_cosine", 0, lr, min_lr=min_lr)
    if step < warmup_steps:
        return float(lr * step / warmup_steps)
    falling = max(total_steps - warmup_steps, 1)
    return float(min_lr + (lr - min_lr) * (1 + math.cos(math.pi * (step - warmup_steps) / falling)) / 2)


def inverse_sqrt(step: int, *, lr: float, warmup_steps: int, timescale: int | None = None) -> float:
    """η(k) = η · k/W  for k < W,  then η · √(τ / (k − W + τ)).

    With τ = W this is η · √(W/k), Noam's schedule (Vaswani et al. 2017, arXiv:1706.03762, equation 3): there η = 1/√(D W).

    Parameters
    ----------
    step : int           k ≥ 0
    lr : float           η > 0, at step W
    warmup_steps : int   W ≥ 0
    timescale : int      τ ≥ 1, after how many steps it has fallen to η/√2; W if not given (10,000 if W is 0)

    Returns
    -------
    lr : float   there is no end: it goes on falling

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [inverse_sqrt(k, lr=1.0, warmup_steps=4) for k in (0, 2, 4, 16, 64)]
    [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    size("inverse_sqrt", at_least=0, step=step, warmup_steps=warmup_steps)
    positive("inverse_sqrt", lr=lr)
    tau = timescale if timescale is not None else warmup_steps or 10_000
    size("inverse_sqrt", timescale=tau)
    if step < warmup_steps:
        return float(lr * step / warmup_steps)
    return float(lr * math.sqrt(tau / (step - warmup_steps + tau)))


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
    """η(k) = η_min + (η − η_min) · f(x):  x rises from 0 to 1 over W steps, stays for S, falls back to 0 over D (WSD, arXiv:2404.06395).

    f(x) is x ("linear"), (1 − cos πx) / 2 ("cosine") or 1 − √(1 − x) ("1-sqrt"), chosen apart for the rise and the fall.

    Parameters
    ----------
    step : int            k ≥ 0
    lr : float            η > 0, for S steps from step W on
    warmup_steps : int    W ≥ 0
    stable_steps : int    S ≥ 0
    decay_steps : int     D ≥ 0
    warmup_type, decay_type : "linear", "cosine" or "1-sqrt"
    min_lr : float        η_min in [0, η], at step 0 and from step W + S + D on

    Returns
    -------
    lr : float   from step W + S + D on it stays at η_min

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> options = dict(lr=1.0, warmup_steps=2, stable_steps=2, decay_steps=2, decay_type="linear")
    >>> [warmup_stable_decay(k, **options) for k in range(8)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    size("warmup_stable_decay", at_least=0, step=step, warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    positive("warmup_stable_decay", lr=lr)
    choice("warmup_stable_decay", ("linear", "cosine", "1-sqrt"), warmup_type=warmup_type, decay_type=decay_type)
    in_range("warmup_stable_decay", 0, lr, min_lr=min_lr)
    since_peak, decayed = step - warmup_steps, step - warmup_steps - stable_steps
    if since_peak < 0:
        part = _eased(step / warmup_steps, warmup_type)
    elif decayed < 0:
        part = 1.0
    elif decayed < decay_steps:
        part = _eased(1 - decayed / decay_steps, decay_type)
    else:
        part = 0.0
    return float(min_lr + (lr - min_lr) * part)


def _eased(x: float, shape: str) -> float:
    if shape == "cosine":
        return (1 - math.cos(math.pi * x)) / 2
    if shape == "1-sqrt":
        return 1 - math.sqrt(1 - x)
    return x
