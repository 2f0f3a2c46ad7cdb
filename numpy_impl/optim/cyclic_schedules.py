"""Learning rates that return to their peak, or rise to it once and fall: pure functions of the step."""

import math

from byhand.checks import choice, demand, in_range, positive, size


def cosine_restarts(step: int, *, lr: float, T_0: int, T_mult: int = 1, min_lr: float = 0.0) -> float:
    """η(k) = η_min + (η − η_min) · (1 + cos(π k'/T)) / 2,  k' steps after the last restart (SGDR, arXiv:1608.03983, equation 5).

    The first cycle lasts T₀ steps, each further one T_mult times as long as the one before.

    Parameters
    ----------
    step : int       k ≥ 0
    lr : float       η > 0, at every restart
    T_0 : int        T₀ ≥ 1
    T_mult : int     ≥ 1
    min_lr : float   η_min in [0, η], approached before every restart and never reached: step T₀ is a restart

    Returns
    -------
    lr : float   there is no end: cycles follow each other

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> [round(cosine_restarts(k, lr=1.0, T_0=2, T_mult=2), 4) for k in range(7)]
    [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]
    """
    size("cosine_restarts", at_least=0, step=step)
    positive("cosine_restarts", lr=lr)
    size("cosine_restarts", T_0=T_0, T_mult=T_mult)
    in_range("cosine_restarts", 0, lr, min_lr=min_lr)
    since_restart, cycle = step, T_0
    while since_restart >= cycle:
        since_restart -= cycle
        cycle *= T_mult
    return float(min_lr + (lr - min_lr) * (1 + math.cos(math.pi * since_restart / cycle)) / 2)


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
    """η(k) goes from a = η/div_factor up to η, and down to b = a/final_div_factor at step T − 1 (Smith & Topin 2018, arXiv:1708.07120).

    The peak stands at step p = pct_start · T − 1, which need not be whole. With two phases the way down is one; with three it passes a
    at step 2p. Between x at the begin and y at the end of a phase, a share s of it gone by, η is y + (x − y) · (1 + cos πs) / 2 ("cos")
    or x + (y − x) · s ("linear").

    Parameters
    ----------
    step : int                 k in [0, T − 1]
    lr : float                 η > 0, the peak
    total_steps : int          T ≥ 1
    pct_start : float          share of the steps before the peak, in (1/T, 1], with three phases in (1/T, 1/2]
    anneal_strategy : str      "cos" or "linear"
    div_factor : float         > 0
    final_div_factor : float   > 0
    three_phase : bool

    Returns
    -------
    lr : float   there is nothing after step T − 1 (torch goes on for one step, past b, before it refuses)

    Raises
    ------
    ValueError   if an argument is out of its range; among them a step from T on, and a rise without a length

    Examples
    --------
    >>> options = dict(lr=1.0, total_steps=6, pct_start=0.5, anneal_strategy="linear", div_factor=4.0, final_div_factor=5.0)
    >>> [round(one_cycle(k, **options), 4) for k in range(6)]
    [0.25, 0.625, 1.0, 0.6833, 0.3667, 0.05]
    """
    size("one_cycle", at_least=0, step=step)
    positive("one_cycle", lr=lr)
    size("one_cycle", total_steps=total_steps)
    in_range("one_cycle", 0, total_steps - 1, step=step)
    choice("one_cycle", (False, True), three_phase=three_phase)
    in_range("one_cycle", 0, 0.5 if three_phase else 1.0, pct_start=pct_start)
    demand("one_cycle", pct_start * total_steps > 1, "pct_start * total_steps > 1", pct_start=pct_start, total_steps=total_steps)
    choice("one_cycle", ("cos", "linear"), anneal_strategy=anneal_strategy)
    positive("one_cycle", div_factor=div_factor, final_div_factor=final_div_factor)

    first, last, peak = lr / div_factor, lr / div_factor / final_div_factor, pct_start * total_steps - 1
    phases = [(0.0, peak, first, lr)]                            # (its first step, its last step, the learning rates there)
    if three_phase:
        phases += [(peak, 2 * peak, lr, first), (2 * peak, total_steps - 1, first, last)]
    else:
        phases += [(peak, total_steps - 1, lr, last)]

    begin, end, x, y = next(phase for phase in phases if step <= phase[1])
    gone = (step - begin) / (end - begin)
    if anneal_strategy == "cos":
        return float(y + (x - y) * (1 + math.cos(math.pi * gone)) / 2)
    return float(x + (y - x) * gone)
