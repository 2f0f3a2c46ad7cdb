"""`byhand train`: a GPT trained on text by one implementation, or by both on the same weights, batches and dropout masks."""

import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from byhand import blas, corpus
from byhand.checks import NonFiniteError
from byhand.commands.backends import Backend, NumpyBackend, TorchBackend
from byhand.commands.display import Display
from byhand.commands.history import PROMISED_FLOAT64, History
from byhand.continuation import compare, continue_greedily
from byhand.curves import draw_losses
from byhand.routing_metrics import LayerRouting, logged
from byhand.run_directory import RunDirectory
from byhand.training_config import TrainingConfig


def train(config: TrainingConfig) -> bool:
    """Train, print, and leave a run directory; False if two implementations disagree by more than was promised.

    Raises
    ------
    ValueError       if the configuration, the text or the installation will not do
    NonFiniteError   if a loss or a gradient is not finite; the weights before that step are saved
    """
    text = corpus.load(config.text)
    training, kept_apart = corpus.split(text.tokens)
    validation = corpus.spread(kept_apart, batch=config.batch, length=config.length, count=config.validation_batches)

    def batches(step: int) -> list[corpus.Batch]:
        ids, targets = corpus.draw(training, batch=config.batch, length=config.length, seed=config.seed, step=step)
        return list(zip(np.array_split(ids, config.accumulate), np.array_split(targets, config.accumulate), strict=True))

    batches(0)  # a text too short for a window is refused before anything is built
    backends = _backends(config)
    names = [backend.name for backend in backends]
    history = History(names)
    with RunDirectory(config.name, out=config.out) as run, Display(config.steps, config.every, names) as display:
        run.describe("config", config.as_dict())
        run.describe("about", _about(text, config))
        display.say(
            f"{config.preset}, {_size(config)}; {config.steps} steps of {config.batch} × {config.length} bytes of "
            f"{text.name} ({len(text.tokens):,} bytes, SHA-256 {text.digest[:12]}…); {config.dtype}, dropout {config.dropout:g}\n"
        )
        display.header(routed=bool(backends[0].watch.layers))
        try:
            for together in zip(*(backend.fit(batches, validation) for backend in backends), strict=True):
                routings = [backend.watch.take() for backend in backends]
                for backend, progress, routing in zip(backends, together, routings, strict=True):
                    history.add(backend.name, progress, routing)
                    _keep(run, backend, progress, routing)
                display.step(together, routings)
        except NonFiniteError as stopped:
            for backend in backends:
                run.save(f"{backend.name}-last", backend.state(), stopped=stopped)
            stopped.add_note(f"The weights before it are in {run.path}.")
            raise
        except KeyboardInterrupt as interrupted:
            interrupted.add_note(f"What was saved last is whole, in {run.path}.")
            raise
        display.say()
        for line in history.summary():
            display.say(line)
        kept = True
        if len(backends) == 2:
            kept, verdict = history.verdict(config.dtype)
            display.say(verdict)
        if config.sample:
            _sample(display, config, backends)
        _draw(display, run, config, history)
        display.say(f"\n{run.path}: {', '.join(sorted(file.name for file in run.path.iterdir()))}")
    return kept


def _size(config: TrainingConfig) -> str:
    active = getattr(config.model, "active_parameters", None)
    return f"{config.model.parameters:,} parameters" + ("" if active is None else f" ({active:,} of them a token)")


def _backends(config: TrainingConfig) -> list[Backend]:
    """The implementations to train; PyTorch's starts from the weights that NumPy's drew, so that a seed is one run in either."""
    by_hand = NumpyBackend(config)
    if config.backend == "numpy":
        return [by_hand]
    twin = TorchBackend(config, by_hand.state())
    return [by_hand, twin] if config.backend == "both" else [twin]


def _keep(run: RunDirectory, backend: Backend, progress: Any, routing: Sequence[LayerRouting]) -> None:
    metrics = progress.metrics
    run.log(step=progress.step + 1, backend=backend.name, **metrics._asdict(), tokens_per_second=metrics.tokens / metrics.seconds,
            validation=progress.validation, **logged(routing))
    if progress.validation is not None:
        about = dict(step=progress.step + 1, validation=progress.validation)
        run.save(f"{backend.name}-last", backend.state(), **about)
        if progress.best:
            run.save(f"{backend.name}-best", backend.state(), **about)


def _sample(display: Display, config: TrainingConfig, backends: Sequence[Backend]) -> None:
    written = []
    for backend in backends:
        written.append(continue_greedily(backend.logits, config.prompt.encode(), count=config.sample, context=config.length))
    for backend, continuation in zip(backends, written, strict=True):
        display.say(f"\n{backend.name} continues {config.prompt!r}:")
        display.say("  | " + continuation.text.replace("\n", "\n  | "), style="cyan")
    if len(written) == 2:
        display.say("\n" + compare(*written).reason)


def _draw(display: Display, run: RunDirectory, config: TrainingConfig, history: History) -> None:
    title = f"{config.preset}, {config.dtype}, dropout {config.dropout:g}, seed {config.seed}"
    bound = PROMISED_FLOAT64 if config.dtype == "float64" else None
    try:
        draw_losses(run.path / "losses.png", history.losses, validation=history.validation, title=title, bound=bound)
    except ValueError as missing:
        display.say(f"\nNo figure was drawn: {missing}")


def _about(text: corpus.Corpus, config: TrainingConfig) -> dict[str, Any]:
    """What a run met that its configuration does not say."""
    return {
        "text": {"name": text.name, "bytes": len(text.tokens), "files": text.files, "sha256": text.digest},
        "model": dataclasses.asdict(config.model) | {"parameters": config.model.parameters},
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": getattr(sys.modules.get("torch"), "__version__", None),
        "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        blas.VARIABLE: os.environ.get(blas.VARIABLE),
    }
