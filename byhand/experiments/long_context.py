"""Long context, measured: a model trained on short texts reads longer ones, under every rope scaling, with and without adaptation.

A small Llama is trained once, on windows of T tokens, without scaling. Then, for each scheme and each multiple s of T, its weights read
texts of up to s · T tokens with the frequencies scaled for s; and again after a short adaptation, some more steps on windows of s · T
tokens with these frequencies, each from the same weights.

What is compared is honest in two ways. Every length is measured on the same tokens: segments of the longest length, cut into windows of
T, 2T, 4T … that do not overlap, so that each token is predicted exactly once at each length, and a longer window can only differ by what
it lets a token see. And beside the mean over all positions stands that over the last quarter of each window, which a mean that is dominated
by easy early positions does not hide. The control is the unscaled model adapted at T: part of what adaptation gains is just more training.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand import corpus
from byhand.checks import choice, demand, positive, size
from byhand.configs.llama import LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.experiments.long_context_backends import Backend, backend_for
from byhand.experiments.options import check_training
from byhand.run_config import option
from byhand.run_directory import load_weights, save_weights, write_whole

SCHEMES = ("none", "interpolation", "ntk", "dynamic", "yarn", "llama3", "longrope")
SAME_AT_EVERY_FACTOR = ("none", "dynamic")  # before adaptation: they have nothing to set for the length to come
_BINS = 32                                   # places at which the loss by position is kept


@dataclasses.dataclass(frozen=True)
class LongContext:
    """What `run` needs to know.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    backend: Literal["torch", "numpy"] = option("torch", "Which implementation trains and reads.")
    device: Literal["cpu", "cuda"] = option("cpu", "Where PyTorch computes; NumPy computes on the CPU.")
    text: str | None = option(None, "A file or a directory to train on; by default the standard library's own source.")
    length: int = option(512, "T, tokens (bytes) a window in training.")
    factors: tuple[int, ...] = option((2, 4, 8), "The lengths to reach, as multiples of T.")
    schemes: tuple[str, ...] = option(SCHEMES, "The rope scalings to compare.")
    d_model: int = option(128, "Width of the hidden states.")
    n_layers: int = option(4, "Blocks.")
    n_heads: int = option(2, "Heads a block.")
    d_hidden: int = option(384, "Width inside the feed-forward layers.")
    base: float = option(10000.0, "The base of the rotary frequencies.")
    steps: int = option(1500, "Updates at length T.")
    batch: int = option(16, "Windows of T tokens an update; longer windows are fewer, with as many tokens together.")
    lr: float = option(2e-3, "The highest learning rate.")
    warmup: int = option(100, "Steps in which the learning rate rises, at most all of them.")
    final_lr: float = option(0.1, "The learning rate at the end of the cosine, as a share of the highest.")
    weight_decay: float = option(0.1, "AdamW's decay of the matrices; vectors are not decayed.")
    max_norm: float = option(1.0, "Gradients of a larger norm are scaled down to it.")
    adapt_steps: int = option(60, "Updates at the longer length; 0 for no adaptation.")
    adapt_lr: float = option(5e-4, "The highest learning rate of the adaptation.")
    segments: int = option(32, "Segments of the longest length that every measurement reads.")
    read_tokens: int = option(16384, "Tokens in one batch of a measurement, at least one window.")
    seed: int = option(0, "Of the initial weights and the batches.")

    def __post_init__(self) -> None:
        who = "long_context"
        for name in ("factors", "schemes"):
            value = getattr(self, name)
            demand(who, isinstance(value, (tuple, list)) and len(value) > 0, f"{name} as a list", **{name: value})
            object.__setattr__(self, name, tuple(value))
        check_training(who, self)
        for scheme in self.schemes:
            choice(who, SCHEMES, scheme=scheme)
        for factor in self.factors:
            size(who, at_least=2, factor=factor)
        demand(who, list(self.factors) == sorted(set(self.factors)), "factors that rise", factors=self.factors)
        longest = self.factors[-1]
        demand(who, all(longest % factor == 0 for factor in self.factors), "factors that divide the largest", factors=self.factors)
        size(who, length=self.length, d_hidden=self.d_hidden, segments=self.segments, read_tokens=self.read_tokens)
        size(who, at_least=0, adapt_steps=self.adapt_steps, seed=self.seed)
        demand(who, self.length % 4 == 0, "a length of whole quarters", length=self.length)
        demand(who, self.batch % longest == 0, f"a batch that {longest} divides, for as many tokens at every length", batch=self.batch)
        positive(who, base=self.base, adapt_lr=self.adapt_lr)
        demand(who, self.d_model % self.n_heads == 0, "d_model to be a multiple of n_heads", d_model=self.d_model, n_heads=self.n_heads)
        _ = self.model  # refuses an odd width of heads

    @property
    def model(self) -> LlamaConfig:
        """The model that is trained: unscaled."""
        return LlamaConfig(
            vocabulary=256, max_length=self.length, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads,
            d_hidden=self.d_hidden, tied=True, rope=RopeConfig(width=self.d_model // self.n_heads, base=self.base),
        )


class Row(NamedTuple):
    """One measurement.

    scheme, factor     the rope scaling, and s for which it was set; factor 1: unscaled
    adapted            steps of adaptation at length s · T, 0 for none
    length             tokens a window when measured, at most s · T
    tokens             how many were predicted
    loss, perplexity   nats a token, over all that were predicted, and exp(loss)
    last_loss, last_perplexity   over the last quarter of every window
    against_trained    perplexity as a multiple of that of the trained model at T
    error              the standard error of its logarithm: of the mean over the segments of the difference between both losses
    by_segment         the loss of each segment
    by_position        the mean loss in each of (at most 32) equal parts of a window
    """

    scheme: str
    factor: int
    adapted: int
    length: int
    tokens: int
    loss: float
    perplexity: float
    last_loss: float
    last_perplexity: float
    against_trained: float
    error: float
    by_segment: tuple[float, ...]
    by_position: tuple[float, ...]


class Watcher(Protocol):
    """Who is told how far the work is; `Progress` shows it on a terminal."""

    def start(self, total: int) -> None:
        """So many steps and measured windows in all are to come."""

    def advance(self, what: str, by: int = 1) -> None:
        """So many more are done, of this."""


def scaled_rope(scheme: str, factor: int, *, length: int, width: int, base: float = 10000.0) -> RopeConfig:
    """The rope config of a scheme that is to reach factor · length tokens with a model trained on `length`.

    Where the literature leaves a choice it is the simplest: NTK takes s itself; dynamic NTK takes 2, whatever the length; YaRN and
    Llama 3 take their published bands. LongRoPE's factors, which should be searched for, are derived: in Llama 3's bands, 1 for pairs of
    4 turns and more over the trained length and s for those that do not finish one, but between them a power of s, whose exponent rises
    evenly with the logarithm of the wavelength.

    Examples
    --------
    >>> scaled_rope("yarn", 4, length=512, width=64).factor
    4.0
    >>> [round(x, 2) for x in scaled_rope("longrope", 4, length=512, width=8).long_factor]
    [1.0, 1.0, 4.0, 4.0]
    """
    choice("scaled_rope", SCHEMES, scheme=scheme)
    plain: dict[str, Any] = dict(width=width, base=base)
    if scheme == "none" or factor == 1:
        return RopeConfig(**plain)
    if scheme == "interpolation":
        return RopeConfig(type="linear", factor=float(factor), **plain)
    if scheme == "ntk":
        return RopeConfig(type="ntk", factor=float(factor), **plain)
    plain |= dict(original_length=length)
    if scheme == "dynamic":
        return RopeConfig(type="dynamic", factor=2.0, **plain)
    if scheme == "yarn":
        return RopeConfig(type="yarn", factor=float(factor), **plain)
    if scheme == "llama3":
        return RopeConfig(type="llama3", factor=float(factor), low_freq_factor=1.0, high_freq_factor=4.0, **plain)
    turns = length / (2 * math.pi) * base ** (-np.arange(0, width, 2) / width)
    share = np.clip(1 - np.log(turns) / math.log(4), 0, 1)
    long_factor = tuple((factor**share).tolist())
    return RopeConfig(type="longrope", factor=float(factor), short_factor=(1.0,) * (width // 2), long_factor=long_factor, **plain)


def run(options: LongContext | None = None, *, out: str | Path | None = None, progress: Watcher | None = None) -> list[Row]:
    """Train, adapt and measure; the rows of the table, the trained model at T first.

    Parameters
    ----------
    options    LongContext() by default
    out        a directory for options.json, base.safetensors and rows.jsonl, written as they are made; a run that was interrupted, or
               is called again with further schemes, goes on from what is there. None: nothing is written
    progress   is told what is done; None: nobody

    Raises
    ------
    ValueError       if the text is too short, `out` holds a run with other options, or PyTorch or its device is missing
    NonFiniteError   if a loss or a gradient is not finite
    """
    options = options or LongContext()
    text = corpus.load(options.text)
    training, kept_apart = corpus.split(text.tokens)
    longest = options.length * options.factors[-1]
    needed = options.segments * longest
    enough = len(kept_apart) > needed
    demand("long_context", enough, f"more than {needed} bytes of text kept apart, which is a twentieth of the text", kept_apart=kept_apart)
    corpus.draw(training, batch=1, length=longest, seed=0, step=0)  # a text too short is refused before anything is trained
    (segments,) = corpus.spread(kept_apart, batch=options.segments, length=longest, count=1)
    store = _Store(out, options, text.digest)
    backend = backend_for(options)
    work = list(_work(options))
    watcher = progress or _Nobody()
    watcher.start(_total(options, work))

    base = store.weights()
    if base is None:
        base = _train(backend, backend.initial(), options.model, training, options, watcher, "training", options.length, options.steps,
                      options.lr, options.seed)
        store.keep_weights(base)
    else:
        watcher.advance("training", options.steps)
    for scheme, factor, adapted, lengths in work:
        missing = [length for length in lengths if store.row(scheme, factor, adapted, length) is None]
        watcher.advance(f"{scheme} ×{factor}", len(lengths) - len(missing) + (0 if missing else adapted))
        if not missing:
            continue
        rope = scaled_rope(scheme, factor, length=options.length, width=options.d_model // options.n_heads, base=options.base)
        config = dataclasses.replace(options.model, rope=rope)
        weights = base
        if adapted:
            what = f"{scheme} ×{factor}, adapting"
            weights = _train(backend, base, config, training, options, watcher, what, options.length * factor, adapted, options.adapt_lr,
                             options.seed + 1)
        for length in missing:
            losses = _read(backend, weights, config, segments, length, options.read_tokens)
            store.keep(_row(scheme, factor, adapted, length, losses, store.trained))
            watcher.advance(f"{scheme} ×{factor} at {length}" + (", adapted" if adapted else ""))
    return [row for scheme, factor, adapted, lengths in work for length in lengths if (row := store.row(scheme, factor, adapted, length))]


class Progress:
    """How far the work is, on stderr: a bar on a terminal, a line for each new piece of work elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._log = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=self._log,
                        transient=True, disable=not self._log.is_terminal)
        self._task = self._bar.add_task("long context")
        self._said = ""

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def start(self, total: int) -> None:
        """So many steps and measurements in all are to come."""
        self._bar.update(self._task, total=total, completed=0)

    def advance(self, what: str, by: int = 1) -> None:
        """So many more are done, of this."""
        self._bar.update(self._task, advance=by, description=what)
        if by and what != self._said and not self._log.is_terminal:
            task = self._bar.tasks[0]
            self._log.print(f"byhand: {what} ({task.completed:.0f} of {task.total:.0f})", markup=False)
            self._said = what


class _Nobody:
    def start(self, total: int) -> None:
        pass

    def advance(self, what: str, by: int = 1) -> None:
        pass


# What is measured


def _work(options: LongContext) -> Iterator[tuple[str, int, int, list[int]]]:
    """(scheme, factor, steps of adaptation, lengths to read), the trained model at T first."""
    t, factors = options.length, options.factors
    yield "none", 1, 0, [t]
    if options.adapt_steps:
        yield "none", 1, options.adapt_steps, [t]     # the control
    for scheme in options.schemes:
        for factor in factors:
            reached = [t] * (scheme != "none") + [t * f for f in factors if f <= factor]
            if scheme not in SAME_AT_EVERY_FACTOR or factor == factors[-1]:
                yield scheme, factor, 0, reached
            if options.adapt_steps:
                yield scheme, factor, options.adapt_steps, [t, *(t * f for f in factors if f <= factor)]


def _total(options: LongContext, work: list[tuple[str, int, int, list[int]]]) -> int:
    return options.steps + sum(adapted + len(lengths) for _, _, adapted, lengths in work)


def _train(backend: Backend, weights: Mapping[str, NDArray], config: LlamaConfig, tokens: NDArray, options: LongContext,
           watcher: Watcher, what: str, length: int, steps: int, lr: float, seed: int) -> dict[str, NDArray]:
    """The weights after so many more steps on windows of `length`, as many tokens a step at every length."""
    batch = options.batch * options.length // length

    def batches(step: int) -> list[corpus.Batch]:
        return [corpus.draw(tokens, batch=batch, length=length, seed=seed, step=step)]

    def done() -> None:
        watcher.advance(what)

    return backend.train(weights, config, batches, steps, lr, done)


def _read(backend: Backend, weights: Mapping[str, NDArray], config: LlamaConfig, segments: corpus.Batch, length: int,
          read_tokens: int) -> NDArray:
    """Losses by token, (segments, windows a segment, length), of the segments cut into windows of `length`."""
    ids, targets = (array.reshape(-1, length) for array in segments)
    rows = max(read_tokens // length, 1)
    read = backend.reader(weights, config)
    losses = np.concatenate([read(ids[i : i + rows], targets[i : i + rows]) for i in range(0, len(ids), rows)])
    return losses.reshape(len(segments[0]), -1, length).astype(np.float64)


def _row(scheme: str, factor: int, adapted: int, length: int, losses: NDArray, trained: Row | None) -> Row:
    loss, last = float(losses.mean()), float(losses[..., length - length // 4 :].mean())
    by_segment = losses.mean((1, 2))
    # Segments differ much more from each other than schemes do on one of them, and all schemes read the same: what counts is the difference
    gaps = by_segment - (by_segment if trained is None else trained.by_segment)
    error = float(gaps.std(ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else math.nan
    places = losses.mean((0, 1)).reshape(math.gcd(length, _BINS), -1).mean(1)
    return Row(scheme, factor, adapted, length, losses.size, loss, math.exp(loss), last, math.exp(last),
               against_trained=math.exp(float(gaps.mean())), error=error, by_segment=tuple(by_segment.tolist()),
               by_position=tuple(places.tolist()))


class _Store:
    """What is done already: in memory and, with a directory, on the disk."""

    def __init__(self, out: str | Path | None, options: LongContext, text: str):
        self._rows: dict[tuple[str, int, int, int], Row] = {}
        self._path = None if out is None else Path(out)
        self.trained: Row | None = None
        if self._path is None:
            return
        self._path.mkdir(parents=True, exist_ok=True)
        own = dataclasses.asdict(options) | {"text": text}
        for name in ("schemes", "device", "read_tokens"):  # what may differ from call to call
            del own[name]
        own = json.loads(json.dumps(own))
        file = self._path / "options.json"
        if file.exists():
            held = json.loads(file.read_text(encoding="utf-8"))
            other = sorted(name for name in own.keys() | held.keys() if own.get(name) != held.get(name))
            demand("long_context", not other, f"{self._path} with the options that it was begun with", differing=other)
        else:
            write_whole(file, (json.dumps(own, indent=1) + "\n").encode())
        file = self._path / "rows.jsonl"
        whole = [line for line in file.read_text(encoding="utf-8").splitlines() if _whole(line)] if file.exists() else []
        write_whole(file, "".join(line + "\n" for line in whole).encode())    # without the line that an interrupted run did not finish
        for line in whole:
            values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(line).items()}
            self._remember(Row(**values))

    def weights(self) -> dict[str, NDArray] | None:
        """The trained weights, if they are there."""
        return load_weights(self._path / "base.safetensors") if self._path and (self._path / "base.safetensors").exists() else None

    def keep_weights(self, weights: Mapping[str, NDArray]) -> None:
        if self._path:
            save_weights(self._path / "base.safetensors", weights)

    def row(self, *key: Any) -> Row | None:
        """The row of (scheme, factor, adapted, length), if it is there."""
        return self._rows.get(key)

    def keep(self, row: Row) -> None:
        self._remember(row)
        if self._path:
            with (self._path / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row._asdict()) + "\n")

    def _remember(self, row: Row) -> None:
        self._rows[row.scheme, row.factor, row.adapted, row.length] = row
        if (row.factor, row.adapted) == (1, 0):
            self.trained = row


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
