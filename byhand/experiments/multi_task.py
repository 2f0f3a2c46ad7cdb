"""Eight tasks at once: one base, frozen, is adapted to all of them by MixLoRA and by a single LoRA, and must answer exactly.

What is compared is the same but for the adapters of the feed-forward layers: MixLoRA's experts; one LoRA of as many trainable parameters
as all of them and their routers; one of as many as a token meets, which is k experts and the routers. All see the same examples in the same
order. Each gets its learning rate by the same number of trials, with a seed of their own and judged on validation examples; the test
examples are looked at once, at the end. MixLoRA is trained without its balance loss as well, with the learning rate it has with it, to tell
what that loss does.
"""

import dataclasses
import functools
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, positive, size
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixlora import MixLoRAConfig
from byhand.corpus import Batch
from byhand.experiments import processes
from byhand.experiments.multi_task_backends import Adapters, Learner, learner
from byhand.experiments.options import check_training
from byhand.run_config import option
from byhand.run_directory import load_weights, save_weights, write_whole
from byhand.tasks import multi_task
from byhand.tasks.multi_task import TASKS, VOCABULARY, Example

METHODS: dict[str, str] = {
    "mixlora": "MixLoRA",
    "trainable": "LoRA, equal trainable",
    "active": "LoRA, equal active",
    "unbalanced": "MixLoRA, no balance loss",
}
_TUNED_AS = {"unbalanced": "mixlora"}     # whose learning rate it takes
_GROUP = 16                               # updates whose examples are sorted by length, so that hardly anything is padding
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclasses.dataclass(frozen=True)
class MultiTask:
    """What `run` needs to know.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    backend: Literal["torch", "numpy"] = option("torch", "Which implementation trains and answers.")
    device: Literal["cpu", "cuda"] = option("cpu", "Where PyTorch computes; NumPy computes on the CPU.")
    jobs: int | None = option(None, "Trainings at a time, each in a process of its own; by default one for every CPU core, one on a GPU.")
    seeds: int = option(3, "How often each method is trained: with the seeds 0, 1, …")
    tasks: tuple[str, ...] = option(TASKS, "The outermost operations.")
    depth: int = option(2, "The most levels of operations.")
    longest: int = option(3, "The most arguments of an operation; the fewest are 2.")
    nested: float = option(0.2, "The share of arguments that are operations.")
    experts: int = option(8, "Experts of each feed-forward layer.")
    top_k: int = option(2, "How many of them compute a token.")
    rank: int = option(4, "The rank of an expert's updates; the ranks of the single LoRAs follow from it.")
    attention_rank: int = option(4, "The rank of adapters on the projections of attention, in all methods alike; 0: it is frozen.")
    scaling: float = option(2.0, "What every update is scaled by, α / rank.")
    balance: float = option(0.01, "The weight of the load-balance loss.")
    lrs: tuple[float, ...] = option((0.0025, 0.005, 0.01), "The learning rates that are tried for each method.")
    steps: int = option(1200, "Updates of the adapters.")
    batch: int = option(64, "Examples an update.")
    trial_seed: int = option(100, "The seed of the trials.")
    judged: int = option(1600, "Examples by which a training is judged: for validation in a trial, else for the test.")
    base_steps: int = option(5000, "Updates of the base.")
    d_model: int = option(64, "Width of the hidden states.")
    d_hidden: int = option(8, "Width inside the feed-forward layers.")
    n_layers: int = option(3, "Blocks.")
    n_heads: int = option(4, "Heads a block.")
    lr: float = option(3e-3, "The highest learning rate of the base.")
    warmup: int = option(100, "Steps in which a learning rate rises, at most a twentieth of them.")
    final_lr: float = option(0.1, "The learning rate at the end of the cosine, as a share of the highest.")
    weight_decay: float = option(0.1, "AdamW's decay of the base's matrices; adapters are not decayed.")
    max_norm: float = option(1.0, "Gradients of a larger norm are scaled down to it.")

    def __post_init__(self) -> None:
        who = "multi_task"
        for name in ("tasks", "lrs"):
            value = getattr(self, name)
            demand(who, isinstance(value, (tuple, list)) and len(value) > 0, f"{name} as a list", **{name: value})
            object.__setattr__(self, name, tuple(value))
        check_training(who, self)
        size(who, seeds=self.seeds, judged=self.judged, base_steps=self.base_steps, d_hidden=self.d_hidden)
        size(who, at_least=0, trial_seed=self.trial_seed, attention_rank=self.attention_rank)
        demand(who, self.trial_seed >= self.seeds, "a trial_seed that is none of the seeds", trial_seed=self.trial_seed, seeds=self.seeds)
        demand(who, self.judged >= len(self.tasks), "an example of every task to be judged by", judged=self.judged)
        if self.jobs is not None:
            size(who, jobs=self.jobs)
        for lr in self.lrs:
            positive(who, lrs=lr)
        positive(who, scaling=self.scaling)
        multi_task.examples(0, 0, tasks=self.tasks, **self.shape)
        self.adapters("mixlora")
        fits = self.d_model % (2 * self.n_heads) == 0
        demand(who, fits, "d_model to be a multiple of 2 · n_heads", d_model=self.d_model, n_heads=self.n_heads)

    @property
    def shape(self) -> dict[str, Any]:
        """Of the expressions."""
        return dict(depth=self.depth, longest=self.longest, nested=self.nested)

    @property
    def model(self) -> LlamaConfig:
        """The base."""
        return LlamaConfig(vocabulary=len(VOCABULARY), max_length=128, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads,
                           d_hidden=self.d_hidden, tied=True)

    def feed_forward_rank(self, method: str) -> int:
        """R, the rank that gives a single LoRA at least as many parameters: R · 3 (D + F) ≥ n · r · 3 (D + F) + E · D, with n = E or k."""
        experts = self.experts if method == "trainable" else self.top_k
        return experts * self.rank + math.ceil(self.experts * self.d_model / (3 * (self.d_model + self.d_hidden)))

    def adapters(self, method: str) -> Adapters:
        """What is put on the base."""
        found: list[LoRAConfig | MixLoRAConfig] = []
        if self.attention_rank:
            found.append(LoRAConfig(r=self.attention_rank, alpha=self.scaling * self.attention_rank, targets=_ATTENTION))
        if method in ("trainable", "active"):
            r = self.feed_forward_rank(method)
            return [*found, LoRAConfig(r=r, alpha=self.scaling * r, targets=_FEED_FORWARD)]
        balance = 0.0 if method == "unbalanced" else self.balance
        return [*found, MixLoRAConfig(n_experts=self.experts, k=self.top_k, r=self.rank, alpha=self.scaling * self.rank, balance=balance)]


class Result(NamedTuple):
    """One training.

    method       a key of METHODS
    seed, lr     of the adapters' start and the examples; the highest learning rate
    parameters   how many numbers trained
    losses       nats a token of the answers, before each update (with the balance loss, where there is one)
    accuracy     task -> share of exact answers
    shares       of each layer, the share of the tokens' choices that each expert got; empty without experts
    seconds      of training
    """

    method: str
    seed: int
    lr: float
    parameters: int
    losses: list[float]
    accuracy: dict[str, float]
    shares: list[list[float]]
    seconds: float

    @property
    def mean(self) -> float:
        """The mean accuracy of the tasks."""
        return statistics.fmean(self.accuracy.values())

    @property
    def largest(self) -> float:
        """The largest share of an expert, as a multiple of an even one, in the layer where it is largest; NaN without experts."""
        return max((max(shares) * len(shares) for shares in self.shares), default=math.nan)


class Outcome(NamedTuple):
    """trials and results, in the order of METHODS; lrs: what the trials chose."""

    trials: list[Result]
    results: list[Result]
    lrs: dict[str, float]


class Watcher:
    """Who is told how far the work is; this one does not care."""

    def start(self, total: int) -> None:
        """So many updates in all are to come."""

    def step(self, what: str, step: int, loss: float) -> None:
        """An update is done."""

    def done(self, what: str, result: Result | None, *, kept: bool) -> None:
        """A training is done, now or, if `kept`, by an earlier run; the base's has no result."""


def run(options: MultiTask | None = None, *, out: str | Path | None = None, watcher: Watcher | None = None) -> Outcome:
    """Train the base, find each method's learning rate, train each with every seed.

    Parameters
    ----------
    options    MultiTask() by default
    out        a directory for base.safetensors and a file for each training, written as they come; a run that was interrupted, or is called
               again with more seeds, goes on from what is there. None: nothing is written
    watcher    is told what is done; None: nobody

    Raises
    ------
    ValueError       if `out` holds a run with other options, or PyTorch or its device is missing
    NonFiniteError   if a loss or a gradient is not finite
    """
    options, watcher = options or MultiTask(), watcher or Watcher()
    store = _Store(out, options)
    tuned = [method for method in METHODS if method not in _TUNED_AS]
    base = store.base()
    watcher.start(_left(options, store, tuned, base is None))
    if base is None:
        base = _pretrained(options, functools.partial(watcher.step, "base"))
        store.keep_base(base)
        watcher.done("base", None, kept=False)
    else:
        watcher.done("base", None, kept=True)
    trials = _trained(options, base, [(method, options.trial_seed, lr) for method in tuned for lr in options.lrs], store, watcher)
    lrs = {method: max((trial for trial in trials if trial.method == method), key=lambda trial: trial.mean).lr for method in tuned}
    lrs = {method: lrs[_TUNED_AS.get(method, method)] for method in METHODS}
    # Every method once, then all again: whoever stops early has something to compare.
    results = _trained(options, base, [(method, seed, lrs[method]) for seed in range(options.seeds) for method in METHODS], store, watcher)
    return Outcome(trials, sorted(results, key=lambda result: [*METHODS].index(result.method)), lrs)


def _left(options: MultiTask, store: "_Store", tuned: Sequence[str], base: bool) -> int:
    """How many updates are still to be made."""
    trials = sum(store.result(method, options.trial_seed, lr) is None for method in tuned for lr in options.lrs)
    finals = sum(not store.holds(method, seed) for method in METHODS for seed in range(options.seeds))
    return options.base_steps * base + options.steps * (trials + finals)


def answers(model: Learner, prompts: Sequence[str], longest: int) -> list[str]:
    """What the model writes behind each prompt, always its likeliest token, up to a newline or `longest` tokens."""
    written: dict[int, list[int]] = {}
    by_length: dict[int, list[int]] = {}
    encoded = [multi_task.encode(prompt) for prompt in prompts]
    for place, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(place)
    for places in by_length.values():
        for first in range(0, len(places), 256):
            some = places[first : first + 256]
            lines = np.array([encoded[place] for place in some])
            start = lines.shape[1]
            for _ in range(longest):
                lines = np.concatenate([lines, model.next_logits(lines).argmax(-1)[:, None]], 1)
            written |= {place: line[start:].tolist() for place, line in zip(some, lines, strict=True)}
    return [multi_task.decode(_to_newline(written[place])) for place in range(len(prompts))]


def _to_newline(numbers: list[int]) -> list[int]:
    return numbers[: numbers.index(0) + 1] if 0 in numbers else numbers


def _pretrained(options: MultiTask, report: Callable[[int, float], None]) -> dict[str, NDArray]:
    model = learner(options, seed=0)

    @functools.lru_cache(maxsize=1)
    def group(number: int) -> list[Batch]:
        lines = multi_task.pretraining(_GROUP * options.batch, seed=number, **options.shape)
        return _batches(list(lines), options.batch, number, whole=True)

    for step, loss in enumerate(model.fit(lambda step: [group(step // _GROUP)[step % _GROUP]], options.base_steps, options.lr,
                                          options.weight_decay)):
        report(step + 1, loss)
    return {name: array.copy() for name, array in model.state().items()}


def _trained(options: MultiTask, base: Mapping[str, NDArray], wanted: Sequence[tuple[str, int, float]], store: "_Store",
             watcher: Watcher) -> list[Result]:
    """The result of every (method, seed, learning rate); a seed that is the trials' own is judged on the validation examples."""
    results = {one: result for one in wanted if (result := store.result(*one))}
    for result in results.values():
        watcher.done(_what(result.method, result.seed, result.lr), result, kept=True)
    tasks = [(options, base, *one) for one in wanted if one not in results]
    jobs = min((options.jobs or (1 if options.device == "cuda" else os.cpu_count() or 1)), len(tasks))
    for (_, _, *one), result in processes.run(_train, tasks, jobs=jobs, report=watcher.step):
        method, seed, lr = one
        results[method, seed, lr] = result
        store.keep(result)
        watcher.done(_what(method, seed, lr), result, kept=False)
    return [results[one] for one in wanted]


def _train(report: Callable[..., None], options: MultiTask, base: Mapping[str, NDArray], method: str, seed: int, lr: float) -> Result:
    model = learner(options, base, options.adapters(method), seed=seed)
    batches = _training(options, seed)
    losses: list[float] = []
    start = time.perf_counter()
    for loss in model.fit(lambda step: [batches(step)], options.steps, lr, 0.0):
        losses.append(loss)
        report(_what(method, seed, lr), len(losses), loss)
    seconds = time.perf_counter() - start
    part: Any = "validation" if seed == options.trial_seed else "test"
    judged = list(multi_task.examples(options.judged, 0, part=part, tasks=options.tasks, **options.shape))
    given = answers(model, [example.prompt for example in judged], 2 * options.longest)
    routing = model.routing(_without_padding(judged))
    shares = [[float(share) for share in layer.utilisation] for layer in routing]
    return Result(method, seed, lr, model.parameters, losses, multi_task.accuracy(judged, given), shares, seconds)


def _what(method: str, seed: int, lr: float) -> str:
    return f"{METHODS[method]}, seed {seed}, lr {lr:g}"


def _training(options: MultiTask, seed: int) -> Callable[[int], Batch]:
    """step -> its batch, the same for every method."""

    @functools.lru_cache(maxsize=1)
    def group(number: int) -> list[Batch]:
        count = _GROUP * options.batch
        drawn = multi_task.examples(count, seed, part="train", tasks=options.tasks, first=number * count, **options.shape)
        return _batches(list(drawn), options.batch, number)

    return lambda step: group(step // _GROUP)[step % _GROUP]


def _batches(drawn: list[Example], batch: int, seed: int, *, whole: bool = False) -> list[Batch]:
    """The examples in batches of prompts of about one length, in an order that follows from the seed."""
    ordered = sorted(drawn, key=lambda example: len(multi_task.encode(example.prompt)))
    found = [multi_task.batch(ordered[first : first + batch], whole=whole) for first in range(0, len(ordered), batch)]
    return [found[i] for i in np.argsort(np.random.default_rng(seed).random(len(found)))]


def _without_padding(drawn: Sequence[Example]) -> list[Batch]:
    """The examples in batches of exactly one length each."""
    by_length: dict[int, list[Example]] = {}
    for example in drawn:
        by_length.setdefault(len(multi_task.encode(example.prompt + example.answer)), []).append(example)
    return [multi_task.batch(same) for same in by_length.values()]


class _Store:
    """What is done already: with a directory, on the disk, a file for each training."""

    def __init__(self, out: str | Path | None, options: MultiTask):
        self._path = None if out is None else Path(out)
        if self._path is None:
            return
        own = json.loads(json.dumps({name: value for name, value in dataclasses.asdict(options).items() if name not in FREE}))
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            file = self._path / "config.json"
            if file.exists():
                held = json.loads(file.read_text(encoding="utf-8"))
                other = sorted(name for name in own.keys() | held.keys() if own.get(name) != held.get(name))
                demand("multi_task", not other, f"{self._path} with the options that it was begun with", differing=other)
            write_whole(file, (json.dumps(own, indent=1) + "\n").encode())
        except OSError as error:
            raise ValueError(f"multi_task needs a directory it can write to; {error.filename}: {error.strerror}") from error

    def base(self) -> dict[str, NDArray] | None:
        """The base, if it is trained."""
        file = None if self._path is None else self._path / "base.safetensors"
        return load_weights(file) if file is not None and file.exists() else None

    def keep_base(self, weights: Mapping[str, NDArray]) -> None:
        if self._path is not None:
            save_weights(self._path / "base.safetensors", weights)

    def result(self, method: str, seed: int, lr: float) -> Result | None:
        """What came of this training, if it is done."""
        file = None if self._path is None else self._path / f"{method}-{seed}-{lr:g}.json"
        return Result(**json.loads(file.read_text(encoding="utf-8"))) if file is not None and file.exists() else None

    def holds(self, method: str, seed: int) -> bool:
        """Whether it is trained with this seed, whatever the learning rate."""
        return self._path is not None and any(self._path.glob(f"{method}-{seed}-*.json"))

    def keep(self, result: Result) -> None:
        if self._path is not None:
            file = self._path / f"{result.method}-{result.seed}-{result.lr:g}.json"
            write_whole(file, json.dumps(result._asdict()).encode())


FREE = ("seeds", "jobs", "lrs", "device")     # options that may differ from call to call of one run
