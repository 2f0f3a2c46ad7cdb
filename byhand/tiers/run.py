"""A validation tier carried out: its runs, and every check with what was asked and what was seen."""

import dataclasses
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from byhand.finetuning.base import open_base
from byhand.tiers.memory import measure
from byhand.tiers.plan import PRETRAINED, SEEDS, STUDENT, Plan, pretrained_path
from byhand.tiers.resume import interrupted
from byhand.tiers.watched import Check, Trained, train
from byhand.training_config import TrainingConfig


class Result(NamedTuple):
    """checks : all of them, in the order in which they are shown;  runs : the trainings that were watched, one for each seed"""

    checks: list[Check]
    runs: list[Trained]

    @property
    def kept(self) -> bool:
        """Whether nothing that was demanded failed."""
        return all(check.kept is not False for check in self.checks)


def carry_out(plan: Plan) -> Result:
    """Run the tier.

    Raises
    ------
    ValueError       if the base, the text or the installation will not do
    NonFiniteError   if a loss or a gradient is not finite
    """
    if plan.tier == "memory":
        peak = measure(plan.config)
        assert plan.bound is not None
        within = Check(f"at most {plan.bound / 1e6:,.0f} MB resident at the peak (VmHWM)", f"{peak.nbytes / 1e6:,.1f} MB",
                       peak.nbytes <= plan.bound)
        return Result([*peak.checks, within], [])
    base = open_base(str(plan.config.base))
    seeds = SEEDS if plan.decrease == "noise" else 1
    runs = [train(dataclasses.replace(plan.config, seed=plan.config.seed + i), base) for i in range(seeds)]
    checks = _together([run.checks for run in runs])
    checks.append(_decrease(plan, runs))
    if plan.tier == "resume":
        checks += interrupted(plan.config)
    return Result(checks, runs)


def beyond_noise(decreases: Sequence[float]) -> tuple[bool, float]:
    """(whether a loss fell by more than chance, the standard error of its mean decrease), from one decrease for each seed.

    It did if it fell with every seed and  mean > t · s/√n  with Student's t at 95 %, one-sided; t is that of three seeds.

    Examples
    --------
    >>> beyond_noise([0.30, 0.32, 0.31])[0], beyond_noise([0.01, 0.4, 0.02])[0], beyond_noise([-0.1, 2.0, 2.0])[0]
    (True, False, False)
    """
    error = statistics.stdev(decreases) / math.sqrt(len(decreases))
    return min(decreases) > 0 and statistics.fmean(decreases) > STUDENT * error, error


def pretrain(say: Callable[[str], None], *, root: str = "runs", steps: int = 300) -> Path:
    """The base that tiers start from where none is named: made once, kept in `root`, whole or not there."""
    path = pretrained_path(root)
    if not path.exists():
        from byhand.commands.train import train as train_base

        say(f"No model was named: pre-training {PRETRAINED} on the standard library's source, {steps} steps, a few minutes; "
            f"it is kept in {path} for the next time.")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            train_base(TrainingConfig(preset=PRETRAINED, steps=steps, batch=16, length=128, lr=3e-3, dropout=0.0, validate_every=steps,
                                      every=50, sample=0, out=str(beside)))
            os.rename(beside, path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return path


def _decrease(plan: Plan, runs: Sequence[Trained]) -> Check:
    falls = [run.before - run.after for run in runs]
    saw = ", ".join(f"{run.before:.3f} to {run.after:.3f} ({-fall / run.before:+.1%})" for run, fall in zip(runs, falls, strict=True))
    where = "the loss on text kept apart"
    if plan.decrease == "share":
        assert plan.share is not None
        least = f"by at least {plan.share:.0%}" if plan.share else "at all"
        return Check(f"{where} falls {least}", saw, falls[0] > 0 and falls[0] >= plan.share * runs[0].before)
    if plan.decrease == "noise":
        kept, error = beyond_noise(falls)
        asked = f"{where} falls with each of {len(runs)} seeds, by more than {STUDENT} standard errors of the mean"
        return Check(asked, f"{saw}; mean decrease {statistics.fmean(falls):.3f}, standard error {error:.4f}", kept)
    return Check(f"({where}: nothing is asked here)", saw, None)


def _together(groups: Sequence[list[Check]]) -> list[Check]:
    """The checks of several seeds as one list: what was seen with the first, or with the one that failed."""
    return [next((check for check in same if check.kept is False), same[0]) for same in zip(*groups, strict=True)]
