"""A fine-tuning under watch: what every gradient was like, what moved, and what did not move by one bit."""

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand import corpus
from byhand.commands.finetune_backends import NumpyTuned, TorchTuned, Tuned, digest
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base
from byhand.model_source import as_bytes


class Check(NamedTuple):
    """asked : a demand in words;  saw : what there was;  kept : whether it holds, None where nothing was demanded"""

    asked: str
    saw: str
    kept: bool | None


class Watched:
    """An optimizer that notes the size of every gradient before it steps; either side's.

    largest : list     for every step, max |g| by name: NaN where a gradient has one, infinity likewise, 0 where it is zero everywhere
    """

    def __init__(self, optimizer: Any):
        self._optimizer = optimizer
        self.largest: list[dict[str, float]] = []

    @property
    def lr(self) -> float:
        return self._optimizer.lr

    def step(self, grads: Mapping[str, Any], lr: float | None = None) -> None:
        """Look, then step."""
        self.largest.append({name: float(abs(grad).max()) for name, grad in grads.items() if math.prod(grad.shape)})
        self._optimizer.step(grads, lr=lr)

    def state_dict(self) -> Any:
        """The optimizer's own."""
        return self._optimizer.state_dict()


class Trained(NamedTuple):
    """One run.

    before, after : the loss on text kept apart, before the first update and after the last
    losses : of every step
    validation : the loss on text kept apart by the number of updates before it, 0 included
    seconds : of every step
    trained, total : parameters that train, and all
    nbytes : of what trains, and of the optimizer's state
    frozen : SHA-256 of all that does not train
    checks : what was asked of every array
    """

    before: float
    after: float
    losses: list[float]
    validation: dict[int, float]
    seconds: list[float]
    trained: int
    total: int
    nbytes: tuple[int, int]
    frozen: str
    checks: list[Check]


def train(config: FinetuneConfig, base: Base) -> Trained:
    """Fine-tune as `byhand finetune` does, writing nothing.

    Raises
    ------
    ValueError       if the configuration, the base, the text or the installation will not do
    NonFiniteError   if a loss or a gradient is not finite
    """
    training, apart = corpus.split(_tokens(base, corpus.load(config.text)))
    validation = corpus.spread(apart, batch=config.batch, length=config.length, count=config.validation_batches)

    def batches(step: int) -> list[corpus.Batch]:
        ids, targets = corpus.draw(training, batch=config.batch, length=config.length, seed=config.seed, step=step)
        return list(zip(np.array_split(ids, config.accumulate), np.array_split(targets, config.accumulate), strict=True))

    one: Any = NumpyTuned(config, base)
    if config.backend == "torch":
        one = TorchTuned(config, base, one.state())
    begun = {name: array.copy() for name, array in one.trained().items()}
    frozen = digest(one.state(), begun)
    watched = one.optimizer = Watched(one.optimizer)
    losses, seconds, looks = [], [], {0: evaluate(one, validation)}
    for progress in one.fit(batches, validation, None):
        losses.append(progress.metrics.loss)
        seconds.append(progress.metrics.seconds)
        if progress.validation is not None:
            looks[progress.step + 1] = progress.validation
    trained = one.trained()
    checks = [_moved(begun, trained, watched.largest), _same(frozen, digest(one.state(), trained)),
              *gradients(watched.largest, begun, config.method)]
    sizes = sum(array.nbytes for array in trained.values()), sum(array.nbytes for array in one.optimizer_state().values())
    count = sum(array.size for array in trained.values())
    return Trained(looks[0], looks[config.steps], losses, looks, seconds, count, base.config.parameters, sizes, frozen, checks)


def evaluate(one: Tuned, batches: Sequence[corpus.Batch]) -> float:
    """The loss on these batches, of either side."""
    given: Any = batches
    if one.name == "torch":
        import torch

        device = next(one.model.parameters()).device
        given = [tuple(torch.from_numpy(array).to(device) for array in batch) for batch in batches]
    return float(importlib.import_module(f"{one.name}_impl.train.evaluate").evaluate(one.model, given))


def gradients(largest: Sequence[Mapping[str, float]], begun: Mapping[str, NDArray], method: str = "lora") -> list[Check]:
    """Every gradient is finite, and not zero; but at the first step A's is exactly zero where B is, since dA = s · Bᵀ(…).

    What may be zero of MixLoRA's experts, `_waiting` tells.
    """
    sizes = [size for step in largest for size in step.values()]
    whole = sum(map(math.isfinite, sizes))
    finite = Check("every gradient is finite", f"{whole:,} of {len(sizes):,} in {len(largest)} steps", whole == len(sizes))
    waiting = _waiting(largest)[1:]
    later = [(i, name) for i, (step, without) in enumerate(zip(largest[1:], waiting, strict=True), 2) for name, size in step.items()
             if size == 0 and name not in without]
    count = sum(map(len, largest[1:])) - sum(map(len, waiting))
    saw = f"{count - len(later):,} of {count:,}" + (f"; zero is {later[0][1]} at step {later[0][0]}" if later else "")
    but = ", but of experts without tokens" if any(waiting) else ""
    moving = Check(f"from the second step on no gradient is zero{but}", saw, not later)
    zero = {name for name, size in largest[0].items() if size == 0}
    if method not in ("lora", "full"):
        return [finite, moving]
    still = {name for name in largest[0] if _stands_still(name, begun)}
    what = "the gradient of A is zero where B starts at zero, and no other" if still else "no gradient is zero"
    wrong = sorted(zero ^ still)
    saw = f"zero are {len(zero)} of {len(largest[0])}" + (f"; not as asked: {wrong[0]}" if wrong else "")
    return [finite, Check(f"at the first step {what}", saw, not wrong), moving]


def _waiting(largest: Sequence[Mapping[str, float]]) -> list[set[str]]:
    """For each step the arrays of MixLoRA's experts that have no gradient: all of an expert that has no tokens, if another one of its
    layer has some, and A of one that has its first, since B is still zero."""
    met, waiting = set(), []
    for step in largest:
        layers: dict[str, dict[str, list[str]]] = {}
        for name in step:
            if found := re.fullmatch(r"((.+)\.experts\.\d+)\..+", name):
                layers.setdefault(found[2], {}).setdefault(found[1], []).append(name)
        without: set[str] = set()
        for experts in layers.values():
            busy = {expert for expert, names in experts.items() if any(step[name] for name in names)}
            for expert, names in experts.items() if busy else ():
                without |= {name for name in names if expert not in busy or (expert not in met and name.endswith("lora_A"))}
            met |= busy
        waiting.append(without)
    return waiting


def _stands_still(name: str, begun: Mapping[str, NDArray]) -> bool:
    """Whether this is one half of a product s · B A whose other half begins at zero."""
    stem, _, half = name.rpartition(".")
    other = {"lora_A": "lora_B", "lora_B": "lora_A"}.get(half)
    partner = begun.get(f"{stem}.{other}") if other else None
    return partner is not None and not np.any(partner)


def _moved(begun: Mapping[str, NDArray], trained: Mapping[str, NDArray], largest: Sequence[Mapping[str, float]] = ()) -> Check:
    never = set.intersection(*_waiting(largest)) if largest else set()
    still = [name for name, array in trained.items() if array.size and name not in never and np.array_equal(array, begun[name])]
    asked = len(trained) - len(never)
    saw = f"{asked - len(still)} of {asked}" + (f"; unmoved is {still[0]}" if still else "")
    but = ", but those of experts without tokens" if never else ""
    return Check(f"every trained array changes{but}", saw, not still and bool(trained))


def _same(before: str, after: str) -> Check:
    saw = f"SHA-256 {before[:12]}… before, {after[:12]}… after"
    return Check("no frozen bit changes", saw, before == after)


def _tokens(base: Base, text: corpus.Corpus) -> NDArray:
    if base.tokenize is as_bytes:
        return text.tokens
    return np.asarray(base.tokenize(text.tokens.tobytes().decode("utf-8", errors="replace"))[0], np.int64)
