"""The training loop: schedule, steps, and a look at the validation loss now and then. It reads and writes no files."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from byhand.checks import size
from byhand.noise import Noise
from numpy_impl.layers.stack import Run
from numpy_impl.train.evaluate import evaluate
from numpy_impl.train.step import StepMetrics, train_step

Batch = tuple[NDArray, NDArray]


class Progress(NamedTuple):
    """Where a run stands after one update.

    step        the update's number, from 0
    metrics     its StepMetrics
    validation  the validation loss after it; None where none was taken
    best        whether that is the lowest so far: the weights to keep
    lowest      the lowest so far, infinity before the first
    forwards    forward passes of training so far: where the noise goes on

    What `fit` needs of it to go on after it is step, lowest and forwards; the rest may be None.
    """

    step: int
    metrics: StepMetrics | None
    validation: float | None
    best: bool
    lowest: float
    forwards: int


def fit(
    model: Any,
    optimizer: Any,
    batches: Callable[[int], Sequence[Batch]],
    *,
    steps: int,
    schedule: Callable[[int], float] | None = None,
    max_norm: float | None = None,
    noise: Noise | None = None,
    run: Run = "keep",
    validation: Sequence[Batch] = (),
    validate_every: int = 1,
    loss_scale: float = 1.0,
    after: Progress | None = None,
) -> Iterator[Progress]:
    """for step in range(steps): train_step(model, optimizer, batches(step), lr=schedule(step)), yielding after each.

    The caller drives: it takes the next Progress when it likes, prints, saves the weights if they are the best, or stops.

    Parameters
    ----------
    model, optimizer, max_norm, run, loss_scale   as `train_step` takes them
    batches                           step -> that update's micro-batches
    steps                             how many updates
    schedule                          step -> learning rate; None: the optimizer's own
    noise                             the masks of the very first forward pass; every further one reads the next step
    validation                        batches to judge by; empty: none
    validate_every                    every so many updates, and after the last
    after                             where an earlier run stopped: this one goes on behind it, with the same bits if weights and optimizer
                                      are as they were then; None: from the beginning

    Returns
    -------
    an iterator of Progress

    Raises
    ------
    NonFiniteError   as `train_step` does
    ValueError       if steps or validate_every is below 1
    """
    size("fit", steps=steps, validate_every=validate_every)
    first, lowest, forwards = (0, math.inf, 0) if after is None else (after.step + 1, after.lowest, after.forwards)
    for step in range(first, steps):
        micro_batches = batches(step)
        stream = None if noise is None else dataclasses.replace(noise, step=noise.step + forwards)
        forwards += len(micro_batches)
        metrics = train_step(
            model, optimizer, micro_batches, lr=None if schedule is None else schedule(step),
            max_norm=max_norm, noise=stream, run=run, step=step, loss_scale=loss_scale,
        )
        loss = None
        if validation and ((step + 1) % validate_every == 0 or step + 1 == steps):
            loss = evaluate(model, validation)
        best = loss is not None and loss < lowest
        if best:
            lowest = loss
        yield Progress(step, metrics, loss, best, lowest, forwards)
