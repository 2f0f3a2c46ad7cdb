"""Schedules against torch.optim.lr_scheduler and transformers.get_scheduler used directly, over 200 steps."""

import importlib
import math
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

STEPS = 200
LR = 3e-3
FILES = ("schedules", "warmup_schedules", "cyclic_schedules", "reduce_on_plateau")


def schedule(side, name):
    modules = [importlib.import_module(f"{side}_impl.optim.{file}") for file in FILES]
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def stepped(make, steps=STEPS):
    """The learning rates that a training with this scheduler uses."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=LR)
    scheduler = make(optimizer)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(steps):
            seen.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    return seen


def check(name, options, want, scale=LR):
    for side in ("numpy", "torch"):
        function = schedule(side, name)
        for step, value in enumerate(want):
            got = function(step, lr=LR, **options)
            assert type(got) is float
            assert abs(got - value) <= 1e-12 * scale, (side, step, got, value)


TORCH = [
    ("constant", {}, lambda o: lr_scheduler.LambdaLR(o, lambda step: 1.0)),
    ("step_decay", dict(every=30), lambda o: lr_scheduler.StepLR(o, 30)),
    ("step_decay", dict(every=7, factor=0.8), lambda o: lr_scheduler.StepLR(o, 7, 0.8)),
    ("multi_step", dict(milestones=[0, 5, 150]), lambda o: lr_scheduler.MultiStepLR(o, [0, 5, 150])),
    ("multi_step", dict(milestones=[80], factor=0.5), lambda o: lr_scheduler.MultiStepLR(o, [80], 0.5)),
    ("exponential", dict(factor=0.97), lambda o: lr_scheduler.ExponentialLR(o, 0.97)),
    ("linear", dict(total_steps=120), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 120)),
    ("linear", dict(total_steps=77, start_factor=0.1, end_factor=0.9), lambda o: lr_scheduler.LinearLR(o, 0.1, 0.9, 77)),
    ("polynomial", dict(total_steps=150), lambda o: lr_scheduler.PolynomialLR(o, 150)),
    ("polynomial", dict(total_steps=90, power=2.5), lambda o: lr_scheduler.PolynomialLR(o, 90, 2.5)),
    ("cosine", dict(total_steps=150), lambda o: lr_scheduler.CosineAnnealingLR(o, 150)),
    ("cosine", dict(total_steps=60, min_lr=1e-4), lambda o: lr_scheduler.CosineAnnealingLR(o, 60, 1e-4)),
    ("cosine_restarts", dict(T_0=40), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 40)),
    ("cosine_restarts", dict(T_0=9, T_mult=2, min_lr=1e-4), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 9, 2, 1e-4)),
    ("cosine_restarts", dict(T_0=5, T_mult=3), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 3)),
]
PHASES = [(0.3, False), (0.077, False), (1.0, False), (0.3, True), (0.123, True), (0.5, True)]


@pytest.mark.parametrize("name, options, make", TORCH, ids=lambda value: value if isinstance(value, str) else "")
def test_200_steps_of_torch(name, options, make):
    check(name, options, stepped(make))


@pytest.mark.parametrize("pct_start, three_phase", PHASES)
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
def test_200_steps_of_one_cycle(pct_start, three_phase, anneal_strategy):
    options = dict(pct_start=pct_start, three_phase=three_phase, anneal_strategy=anneal_strategy, div_factor=10.0, final_div_factor=100.0)
    steps = STEPS - 1 if pct_start == 1 else STEPS  # there torch divides by zero when it is stepped to its end
    want = stepped(lambda o: lr_scheduler.OneCycleLR(o, LR, STEPS, cycle_momentum=False, **options), steps)
    check("one_cycle", dict(total_steps=STEPS, **options), want)


def test_defaults_of_one_cycle_are_those_of_torch():
    check("one_cycle", dict(total_steps=STEPS), stepped(lambda o: lr_scheduler.OneCycleLR(o, LR, STEPS)))


def huggingface(name, **options):
    transformers = pytest.importorskip("transformers")
    return stepped(lambda o: transformers.get_scheduler(name, o, **options))


def specific(**options):
    return dict(scheduler_specific_kwargs=options)


WARM = dict(num_warmup_steps=20, num_training_steps=150)
TRANSFORMERS = [
    ("constant", {}, "constant", {}),
    ("warmup_constant", dict(warmup_steps=20), "constant_with_warmup", dict(num_warmup_steps=20)),
    ("warmup_constant", dict(warmup_steps=0), "constant_with_warmup", dict(num_warmup_steps=0)),
    ("warmup_linear", dict(warmup_steps=20, total_steps=150), "linear", WARM),
    ("warmup_linear", dict(warmup_steps=0, total_steps=150), "linear", dict(num_warmup_steps=0, num_training_steps=150)),
    ("warmup_linear", dict(warmup_steps=50, total_steps=50), "linear", dict(num_warmup_steps=50, num_training_steps=50)),
    ("warmup_cosine", dict(warmup_steps=20, total_steps=150), "cosine", WARM),
    ("warmup_cosine", dict(warmup_steps=50, total_steps=50), "cosine", dict(num_warmup_steps=50, num_training_steps=50)),
    ("warmup_cosine", dict(warmup_steps=20, total_steps=150, min_lr=1e-4), "cosine_with_min_lr", WARM | specific(min_lr=1e-4)),
    ("polynomial", dict(total_steps=150, power=2.0, min_lr=1e-5), "polynomial",
     dict(num_warmup_steps=0, num_training_steps=150) | specific(power=2.0, lr_end=1e-5)),
    ("inverse_sqrt", dict(warmup_steps=20), "inverse_sqrt", dict(num_warmup_steps=20)),
    ("inverse_sqrt", dict(warmup_steps=0), "inverse_sqrt", dict(num_warmup_steps=0)),
    ("inverse_sqrt", dict(warmup_steps=20, timescale=7), "inverse_sqrt", dict(num_warmup_steps=20) | specific(timescale=7)),
] + [
    ("warmup_stable_decay", dict(warmup_steps=20, stable_steps=90, decay_steps=40, warmup_type=rise, decay_type=fall, min_lr=0.1 * LR),
     "warmup_stable_decay", WARM | specific(num_decay_steps=40, warmup_type=rise, decay_type=fall, min_lr_ratio=0.1))
    for rise, fall in (("linear", "cosine"), ("cosine", "1-sqrt"), ("1-sqrt", "linear"))
]  # fmt: skip


@pytest.mark.parametrize("name, options, theirs, arguments", TRANSFORMERS, ids=lambda value: value if isinstance(value, str) else "")
def test_200_steps_of_transformers(name, options, theirs, arguments):
    check(name, options, huggingface(theirs, **arguments))


def test_restarts_of_transformers_are_ours_up_to_their_end():
    """It divides the whole training into cycles of one length, and ends at 0; torch's cycles, and ours, go on."""
    want = huggingface("cosine_with_restarts", num_warmup_steps=0, num_training_steps=128, **specific(num_cycles=4))
    check("cosine_restarts", dict(T_0=32), want[:128])
    assert set(want[128:]) == {0.0}


def test_noam():
    """Equation 3 of "Attention is all you need", from step 1 on."""
    width, warmup = 512, 40
    for step in range(1, STEPS):
        want = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        for side in ("numpy", "torch"):
            assert schedule(side, "inverse_sqrt")(step, lr=(width * warmup) ** -0.5, warmup_steps=warmup) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_200_losses_on_a_plateau(mode, threshold_mode):
    losses = np.round(np.exp(-np.arange(STEPS) / 60) + np.random.default_rng(0).normal(0, 0.02, STEPS), 2).tolist()
    losses[70] = math.nan
    options = dict(factor=0.7, patience=4, threshold=0.02, threshold_mode=threshold_mode, mode=mode, cooldown=3, min_lr=1e-5)
    optimizer = torch.optim.SGD([torch.zeros(())], lr=LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **options)
    for count in range(STEPS):
        for side in ("numpy", "torch"):
            got = schedule(side, "reduce_on_plateau")(losses[:count], lr=LR, **options)
            assert type(got) is float
            assert got == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        scheduler.step(losses[count])
    assert LR * 0.7**20 < got < LR * 0.7**2


def test_edges_are_exact():
    for side in ("numpy", "torch"):
        cosine, linear = schedule(side, "warmup_cosine"), schedule(side, "warmup_linear")
        for options in (dict(warmup_steps=3, total_steps=10), dict(warmup_steps=0, total_steps=7)):
            edge, end = options["warmup_steps"], options["total_steps"]
            for falling in (cosine, linear):
                assert falling(edge, lr=0.1, **options) == 0.1
                assert falling(end, lr=0.1, **options) == 0.0
                assert falling(0, lr=0.1, **options) == (0.0 if edge else 0.1)
            assert linear(end + 5, lr=0.1, **options) == 0.0
            assert cosine(end + 1, lr=0.1, **options) > 0.0
        assert schedule(side, "one_cycle")(99, lr=0.1, total_steps=100) == pytest.approx(0.1 / 25 / 1e4, rel=1e-14)
        with pytest.raises(ValueError, match=r"step in \[0, 99\]"):
            schedule(side, "one_cycle")(100, lr=0.1, total_steps=100)


def test_numpy_integers_are_steps():
    for side in ("numpy", "torch"):
        for name, options in (("cosine", dict(total_steps=9)), ("linear", dict(total_steps=9)), ("exponential", dict(factor=0.5))):
            got = schedule(side, name)(np.int64(4), lr=1, **options)
            assert type(got) is float
            assert got == schedule(side, name)(4, lr=1.0, **options)
