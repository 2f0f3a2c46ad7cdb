"""`byhand experiment`: variants trained side by side, with a progress display, a table, a figure, and a directory that can be resumed."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from byhand import corpus
from byhand.experiments import architecture, architecture_report, multi_task, multi_task_report
from byhand.experiments.architecture import Architecture, Result, Watcher
from byhand.experiments.documentation import check, insert


def compare_architectures(suite: str, options: Architecture, *, out: Path | None, docs: Path | None) -> None:
    """Train a suite, print its table, and leave a directory with everything; with `docs`, write table and figure into that document.

    Raises
    ------
    ValueError   if the options, the text, the directory, the document or the installation will not do
    """
    console = Console(highlight=False, soft_wrap=True)
    if docs is not None:
        check(docs, suite)
    text = corpus.load(options.text)
    out = _directory(out, architecture.name_of(suite, architecture.fixed(options) | {"text": text.digest}))
    variants = architecture.chosen(suite, options)
    console.print(f"[bold]{architecture.SUITES[suite].question}[/]: {', '.join(variants)}; {options.seeds} "
                  f"{'seed' if options.seeds == 1 else 'seeds'}, {options.steps} steps of {options.batch} × {options.length} bytes of "
                  f"{text.name}; {options.backend} on {options.device}\n")
    with _resumable(out), Display() as display:
        results = architecture.run(suite, options, out=out, watcher=display)
    console.print(_table(results))
    written = architecture_report.write(suite, options, results, out)
    _say_where(console, out, written)
    if docs is not None:
        figure = next((path for path in written if path.suffix == ".png"), None)
        insert(docs, suite, f"{_made_by(suite, options, text)}\n\n{(out / 'table.md').read_text(encoding='utf-8')}", figure)
        console.print(f"{docs}: the section on {suite} is new")


def extend_context(options: Any, *, out: Path | None, docs: Path | None) -> None:
    """Train at one length, read longer texts under every rope scaling; as above, a table, a directory and a document."""
    from byhand.experiments import long_context, long_context_report

    console = Console(highlight=False, soft_wrap=True)
    if docs is not None:
        check(docs, "long-context")
    text = corpus.load(options.text)
    values = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("schemes", "device", "read_tokens")}
    out = _directory(out, architecture.name_of("long-context", values | {"text": text.digest}))
    with _resumable(out), long_context.Progress() as progress:
        rows = long_context.run(options, out=out, progress=progress)
    written = long_context_report.write(rows, out)
    table = (out / "table.md").read_text(encoding="utf-8")
    console.print(table, markup=False)
    _say_where(console, out, written)
    if docs is not None:
        figure = next((path for path in written if path.suffix == ".png"), None)
        insert(docs, "long-context", f"{_made_by('long-context', options, text)}\n\n{table}", figure)
        console.print(f"{docs}: the section on long-context is new")


def learn_tasks(options: Any, *, out: Path | None, docs: Path | None) -> None:
    """MixLoRA and single LoRAs on eight tasks at once; as above, tables, a directory and a document."""
    console = Console(highlight=False, soft_wrap=True)
    if docs is not None:
        check(docs, "multi-task")
    values = {name: value for name, value in dataclasses.asdict(options).items() if name not in multi_task.FREE}
    out = _directory(out, architecture.name_of("multi-task", values))
    with _resumable(out), TaskDisplay() as display:
        outcome = multi_task.run(options, out=out, watcher=display)
    written = multi_task_report.write(options, outcome, out)
    table = (out / "table.md").read_text(encoding="utf-8")
    console.print(table, markup=False)
    _say_where(console, out, written)
    if docs is not None:
        figure = next((path for path in written if path.suffix == ".png"), None)
        insert(docs, "multi-task", f"{_command('multi-task', options)}\n\n{table}", figure)
        console.print(f"{docs}: the section on multi-task is new")


class TaskDisplay(multi_task.Watcher):
    """On stderr: a bar on a terminal, elsewhere a line for each training that is done."""

    def __init__(self) -> None:
        self._log = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                             console=self._log, transient=True, disable=not self._log.is_terminal)
        self._task = self._bar.add_task("training", total=None)

    def __enter__(self) -> "TaskDisplay":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def step(self, what: str, step: int, loss: float) -> None:
        self._bar.update(self._task, advance=1, description=f"{what}: {loss:.3f}")

    def done(self, what: str, result: Any, *, kept: bool) -> None:
        how = "" if result is None else f": {100 * result.mean:.1f} % exact"
        self._log.print(f"byhand: {what}{how}{' (done before)' if kept else ''}", markup=False)


class Display(Watcher):
    """On stderr: a bar on a terminal, elsewhere a line for each training that is done."""

    def __init__(self) -> None:
        self._log = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                             console=self._log, transient=True, disable=not self._log.is_terminal)
        self._task = self._bar.add_task("training", total=None)
        self._running: dict[str, str] = {}

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def step(self, variant: str, seed: int, step: int, loss: float) -> None:
        self._running[f"{variant} {seed}"] = f"{variant}, seed {seed}: {loss:.3f}"
        self._bar.update(self._task, advance=1, description="; ".join(self._running.values()))

    def done(self, result: Result, *, kept: bool) -> None:
        self._running.pop(f"{result.variant} {result.seed}", None)
        how = f"diverged after {result.diverged} steps" if result.diverged is not None else f"validation loss {result.loss:.3f}"
        again = " (done before)" if kept else f" in {result.seconds:.0f} s, {result.tokens_per_second:,.0f} tokens/s"
        self._log.print(f"byhand: {result.variant}, seed {result.seed}: {how}{again}", markup=False)


def _table(results: list[Result]) -> Table:
    rows = architecture.summary(results)
    best = architecture_report.best_loss(rows)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(architecture_report.HEADER):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for row in sorted(rows, key=lambda row: (row.diverged > 0, row.loss)):
        table.add_row(*architecture_report.cells(row, best), style="green" if row.loss == best else "red" if row.diverged else None)
    return table


def _directory(out: Path | None, name: str) -> Path:
    return Path("runs") / name if out is None else out


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """What an interruption says."""
    try:
        yield
    except KeyboardInterrupt as interrupted:
        interrupted.add_note(f"What is done is kept in {out}; the same command goes on from there.")
        raise


def _say_where(console: Console, out: Path, written: list[Path]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        console.print("\nNo figure was drawn: pip install 'byhand[plot]'", markup=False)
    console.print(f"\n{out}: {', '.join(path.name for path in written)}", markup=False)


def _made_by(name: str, options: Any, text: corpus.Corpus) -> str:
    """The command that repeats this, and the text it read."""
    return f"{_command(name, options)}\n\nOn {text.name}: {len(text.tokens):,} bytes, SHA-256 {text.digest[:12]}…"


def _command(name: str, options: Any) -> str:
    given = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in ("text", "jobs"):
            given += [f"--{field.name.replace('_', '-')} {item}" for item in (value if isinstance(value, tuple) else (value,))]
    return f"```sh\n{' '.join(['byhand experiment', name, *given])}\n```"

