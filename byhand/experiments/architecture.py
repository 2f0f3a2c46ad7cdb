"""Architecture experiments: variants of one small decoder that differ in a single choice, trained alike, compared on text kept apart.

Every variant sees the same windows of text in the same order, is trained with the same schedule, and is judged on the same validation
windows, once for each seed (of the initial weights and of the windows). What differs between two seeds of one variant says how large a
difference between two variants must be to mean something, so both stand in the table.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from byhand import corpus
from byhand.checks import NonFiniteError, choice, demand, size
from byhand.configs.decoder import DecoderConfig
from byhand.experiments import processes
from byhand.experiments.architecture_backends import train
from byhand.experiments.options import check_training
from byhand.run_config import option
from byhand.run_directory import save_weights, write_whole


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What `run` needs to know.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    backend: Literal["torch", "numpy"] = option("torch", "Which implementation trains.")
    device: Literal["cpu", "cuda"] = option("cpu", "Where PyTorch computes; NumPy computes on the CPU.")
    text: str | None = option(None, "A file or a directory to train on; by default the standard library's own source.")
    only: str | None = option(None, "The variants to train, with commas between them; by default all.")
    jobs: int | None = option(None, "Trainings at a time, each in a process of its own; by default one for every CPU core, one on a GPU.")
    seeds: int = option(3, "How often each variant is trained: with the seeds 0, 1, …")
    steps: int = option(300, "Updates of the weights.")
    batch: int = option(16, "Windows of text an update.")
    length: int = option(128, "Tokens (bytes) a window.")
    d_model: int = option(96, "Width of the hidden states.")
    n_layers: int = option(4, "Blocks.")
    n_heads: int = option(4, "Heads a block.")
    lr: float = option(3e-3, "The highest learning rate.")
    warmup: int = option(30, "Steps in which the learning rate rises, at most all of them.")
    final_lr: float = option(0.1, "The learning rate at the end of the cosine, as a share of the highest.")
    weight_decay: float = option(0.1, "AdamW's decay of the matrices; vectors are not decayed.")
    max_norm: float = option(1.0, "Gradients of a larger norm are scaled down to it.")
    validate_every: int = option(25, "Steps between two looks at the text kept apart.")
    validation_batches: int = option(8, "Batches in one such look.")

    def __post_init__(self) -> None:
        who = "experiment"
        check_training(who, self)
        size(who, seeds=self.seeds)
        if self.jobs is not None:
            size(who, jobs=self.jobs)
        size(who, at_least=8, length=self.length)
        size(who, validate_every=self.validate_every, validation_batches=self.validation_batches)
        _ = self.base  # refuses widths that do not divide

    @property
    def base(self) -> DecoderConfig:
        """What every variant departs from: GPT-2's choices, without biases."""
        return DecoderConfig(vocabulary=256, max_length=self.length, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads)


_KNOWING_NOTHING = math.log(256)  # nats a byte, if all bytes are equally likely


class Suite(NamedTuple):
    """question: what is compared, in a sentence; variants: label -> what of the base is replaced."""

    question: str
    variants: Callable[[Architecture], dict[str, dict[str, Any]]]


SUITES: dict[str, Suite] = {
    "positions": Suite("How a token learns where it stands", lambda o: {
        "learned": dict(positions="learned"), "sinusoidal": dict(positions="sinusoidal"), "rotary": dict(positions="rotary"),
        "ALiBi": dict(positions="alibi"), "relative": dict(positions="relative"), "none": dict(positions="none"),
    }),
    "norms": Suite("Where the hidden states are normalised, and how", lambda o: {
        "pre": dict(norm="pre"), "post": dict(norm="post"), "RMS": dict(norm_type="rms"), "none": dict(norm="none"),
    }),
    "attention": Suite("Which earlier tokens a token may attend to", lambda o: {
        "full": dict(attention="full"), "window": dict(attention="window", window=o.length // 4),
        "sparse": dict(attention="strided", stride=o.length // 8), "linear": dict(attention="linear"),
    }),
    "activations": Suite("What stands between the two matrices of the feed-forward layer", lambda o: {
        "ReLU": dict(activation="relu"), "GELU": dict(activation="gelu"), "Mish": dict(activation="mish"),
        "SwiGLU": dict(activation="swiglu", d_hidden=round(8 * o.d_model / 3)),  # three matrices of 8/3 · D for two of 4 · D
    }),
}


class Result(NamedTuple):
    """One variant, trained with one seed.

    variant, seed
    parameters          how many numbers it learns
    losses              nats a token of each step, before its update
    validation          step -> nats a token on the text kept apart, after it
    tokens_per_second   in training, the first two steps and every validation left out
    seconds             all of its training
    diverged            after how many updates the loss or a gradient was not finite, or the validation loss at the end above that of
                        knowing nothing, ln 256; None where all went well
    """

    variant: str
    seed: int
    parameters: int
    losses: list[float]
    validation: dict[int, float]
    tokens_per_second: float
    seconds: float
    diverged: int | None

    @property
    def loss(self) -> float:
        """The validation loss at the end; NaN if it diverged."""
        return math.nan if self.diverged is not None else self.validation[max(self.validation)]


class Row(NamedTuple):
    """One variant over all seeds: means, and the spread (standard deviation; NaN of a single seed) of its validation losses.

    `diverged` is how many of the seeds diverged; one that did makes loss and perplexity NaN.
    """

    variant: str
    loss: float
    spread: float
    perplexity: float
    parameters: int
    tokens_per_second: float
    seeds: int
    diverged: int


class Watcher:
    """Who is told how far the work is; this one does not care."""

    def start(self, total: int) -> None:
        """So many steps in all are to come."""

    def step(self, variant: str, seed: int, step: int, loss: float) -> None:
        """A training has done `step` updates; the loss of the last one."""

    def done(self, result: Result, *, kept: bool) -> None:
        """A variant is trained, now or, if `kept`, by an earlier run."""


def run(suite: str, options: Architecture | None = None, *, out: str | Path | None = None, watcher: Watcher | None = None) -> list[Result]:
    """Train every variant with every seed; the results in the order of the suite.

    Parameters
    ----------
    suite     a key of SUITES
    options   Architecture() by default
    out       a directory for the results and weights, written as they come: called again after an interruption, or with more seeds or
              other variants, only what is missing is trained. None: nothing is written
    watcher   is told what is done; None: nobody

    Raises
    ------
    ValueError   if the suite or a variant is unknown, the text is too short, `out` holds results of other options, or PyTorch or its
                 device is missing
    """
    options, watcher = options or Architecture(), watcher or Watcher()
    variants = chosen(suite, options)
    text = corpus.load(options.text)
    _windows(text, options)  # a text too short is refused before anything is trained
    store = _Store(out, {"suite": suite, "options": fixed(options), "text": text.digest})

    # All variants once, then all again: whoever stops early has something to compare.
    wanted = [(name, seed) for seed in range(options.seeds) for name in variants]
    results = {task: result for task in wanted if (result := store.result(*task))}
    for result in results.values():
        watcher.done(result, kept=True)
    tasks = [(options, name, seed, variants[name]) for name, seed in wanted if (name, seed) not in results]
    watcher.start(len(tasks) * options.steps)
    jobs = min((options.jobs or (1 if options.device == "cuda" else os.cpu_count() or 1)), len(tasks))
    for (_, name, seed, config), (result, state) in processes.run(_train, tasks, jobs=jobs, report=watcher.step):
        store.keep(result, config, state)
        results[name, seed] = result
        watcher.done(result, kept=False)
    return [results[name, seed] for name in variants for seed in range(options.seeds)]


def chosen(suite: str, options: Architecture) -> dict[str, DecoderConfig]:
    """The configs of the suite's variants by label, or of those that `options.only` names."""
    choice("experiment", SUITES, suite=suite)
    changes = SUITES[suite].variants(options)
    names = list(changes) if options.only is None else [name.strip() for name in options.only.split(",")]
    for name in names:
        choice("experiment", changes, **{f"a variant of {suite}": name})
    return {name: dataclasses.replace(options.base, **changes[name]) for name in changes if name in names}


def fixed(options: Architecture) -> dict[str, Any]:
    """What makes results comparable: all options but how many variants and seeds there are, and how they are spread over processes."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in ("only", "seeds", "jobs")}


def name_of(suite: str, values: dict[str, Any]) -> str:
    """`suite` and a few digits that follow from the values: the same work has the same directory, and so goes on where it stopped."""
    return f"{suite}-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"


def summary(results: list[Result]) -> list[Row]:
    """A row for each variant, in order."""
    rows = []
    for variant in dict.fromkeys(result.variant for result in results):
        own = [result for result in results if result.variant == variant]
        losses = [result.loss for result in own]
        diverged = sum(result.diverged is not None for result in own)
        loss = math.nan if diverged else statistics.fmean(losses)
        rows.append(Row(
            variant, loss, math.nan if diverged or len(own) < 2 else statistics.stdev(losses), math.exp(loss), own[0].parameters,
            statistics.median(result.tokens_per_second for result in own), len(own), diverged,
        ))
    return rows


def _windows(text: corpus.Corpus, options: Architecture) -> tuple[Callable[[int, int], list[corpus.Batch]], list[corpus.Batch]]:
    """((seed, step) -> that update's batches, the batches for validation)."""
    training, kept_apart = corpus.split(text.tokens)
    shape = dict(batch=options.batch, length=options.length)
    corpus.draw(training, seed=0, step=0, **shape)
    return (lambda seed, step: [corpus.draw(training, seed=seed, step=step, **shape)],
            corpus.spread(kept_apart, count=options.validation_batches, **shape))


_load = functools.cache(corpus.load)  # a process trains several variants on one text


def _train(
    report: Callable[..., None], options: Architecture, name: str, seed: int, config: DecoderConfig
) -> tuple[Result, dict[str, Any]]:
    """What came of one variant and seed, and its weights; report(name, seed, updates done, loss) after every step."""
    batches, validation = _windows(_load(options.text), options)
    training = train(options, config, seed, functools.partial(batches, seed), validation)
    losses: list[float] = []
    seen: dict[int, float] = {}
    seconds: list[float] = []
    diverged = None
    try:
        for progress in training.steps:
            losses.append(progress.metrics.loss)
            seconds.append(progress.metrics.seconds)
            if progress.validation is not None:
                seen[progress.step + 1] = progress.validation
                if not progress.validation <= _KNOWING_NOTHING and progress.step + 1 == options.steps:
                    diverged = options.steps
            report(name, seed, progress.step + 1, progress.metrics.loss)
    except NonFiniteError as stopped:
        diverged = stopped.step
    steady = seconds[2:] or seconds
    speed = options.batch * options.length * len(steady) / sum(steady) if steady else math.nan
    return Result(name, seed, training.parameters, losses, seen, speed, sum(seconds), diverged), training.state()


class _Store:
    """What is done already: in memory and, with a directory, on the disk, a file for each variant and seed."""

    def __init__(self, out: str | Path | None, about: dict[str, Any]):
        self._path = None if out is None else Path(out)
        if self._path is None:
            return
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            file = self._path / "config.json"
            if file.exists():
                held = json.loads(file.read_text(encoding="utf-8"))
                other = sorted(_differences(held, about))
                demand("experiment", not other, f"{self._path} with the options that it was begun with", differing=other)
            write_whole(file, (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise ValueError(f"experiment needs a directory it can write to; {error.filename}: {error.strerror}") from error

    def result(self, variant: str, seed: int) -> Result | None:
        """What this variant came to with this seed, if it is known."""
        file = None if self._path is None else self._file(variant, seed, "json")
        if file is None or not file.exists():
            return None
        values = json.loads(file.read_text(encoding="utf-8"))
        values["validation"] = {int(step): _number(loss) for step, loss in values["validation"].items()}
        values["losses"] = [_number(loss) for loss in values["losses"]]
        values["tokens_per_second"] = _number(values["tokens_per_second"])
        return Result(**values)

    def keep(self, result: Result, config: DecoderConfig, state: dict[str, Any]) -> None:
        if self._path is not None:
            about = dict(model="Decoder", config=json.dumps(dataclasses.asdict(config)))
            save_weights(self._file(result.variant, result.seed, "safetensors"), state, **about)
            write_whole(self._file(result.variant, result.seed, "json"), json.dumps(_finite(result._asdict())).encode())

    def _file(self, variant: str, seed: int, ending: str) -> Path:
        assert self._path is not None
        return self._path / f"{variant.lower()}-{seed}.{ending}"


def _differences(held: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    for name in held.keys() | own.keys():
        one, other = held.get(name), own.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other)
        elif one != other:
            yield name


def _finite(value: Any) -> Any:
    """NaN and infinity, for which JSON has no word, as None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
