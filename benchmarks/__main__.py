"""`python -m benchmarks [ops|train] [NAME…] [--json FILE]`: NumPy against PyTorch, forward and backward, in turn.
`python -m benchmarks attention [--json FILE]`: what attention costs, by length, window, group and kernel.
`python -m benchmarks decode [--json FILE]`: what writing text costs, against PyTorch and transformers.
`python -m benchmarks finetune [PART…] [--json FILE] [--docs FILE]`: what fine-tuning gives and costs.
`python -m benchmarks memory [MODEL…] [--json FILE]`: what a step of fine-tuning takes, measured and planned.
`python -m benchmarks moe [--json FILE]`: what a mixture of experts costs, against dense, PyTorch's loop and transformers.
`python -m benchmarks quantize [--json FILE]`: what 4-bit quantization costs, against bitsandbytes.

Each BLAS setting and thread count is a process of its own; for every workload the processes are asked in turn, and within each the columns
alternate. Medians are shown; a ratio above 1 means that NumPy is faster than PyTorch on the CPU in the same processes.
"""

import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table

app = cyclopts.App(name="benchmarks", help=__doc__.split("\n")[0], version_flags=(), result_action="return_value")
out, log = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)  # a file has no width: tables need some


class Worker:
    """A benchmarks.worker process."""

    def __init__(self, label: str, threads: int, env: dict[str, str]):
        env = env | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        self.label, self.threads = label, threads
        command = [sys.executable, "-m", "benchmarks.worker", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = self._read()

    def ask(self, **question: Any) -> dict[str, Any]:
        """One round of one workload."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the benchmark process ({self.label}, {self.threads} threads) ended with code {self._process.wait()}")
        return json.loads(line)


@contextlib.contextmanager
def workers(threads: int) -> Iterator[list[Worker]]:
    """The default BLAS and, where the processor has AVX-512 and NumPy its OpenBLAS, the tuned one."""
    from byhand import blas

    plain = {name: value for name, value in os.environ.items() if name != blas.VARIABLE}
    tuned = dict(plain)
    started = [Worker("default", threads, plain)]
    if blas.tune(tuned, loaded=False):
        started.append(Worker("tuned", threads, tuned))
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


def measure(names: list[str], threads: int, rounds: int, repeats: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row a workload: medians in seconds by column, and what the processes said of themselves."""
    rows = []
    with workers(threads) as started:
        about = {w.label: w.about for w in started}
        columns = ["numpy", "torch"] + (["cuda"] if "cuda" in started[0].about else [])
        for name in track(names, f"{threads} thread{'s' * (threads > 1)}", console=log, disable=not sys.stderr.isatty()):
            seconds: dict[str, list[float]] = {}
            errors = []
            for _ in range(rounds):
                for worker in started:
                    answer = worker.ask(name=name, columns=columns, repeats=repeats)
                    if "error" in answer:
                        errors.append(answer["error"])
                        continue
                    for column, times in answer.items():
                        key = f"numpy {worker.label}" if column == "numpy" else column
                        seconds.setdefault(key, []).extend(times)
            rows.append(_row(name, threads, seconds, errors))
    return rows, about


def _row(name: str, threads: int, seconds: dict[str, list[float]], errors: list[str]) -> dict[str, Any]:
    medians = {column: statistics.median(times) for column, times in seconds.items()}
    spread = {c: (max(t) - min(t)) / medians[c] for c, t in seconds.items()}
    ratios = {c: medians["torch"] / medians[c] for c in medians if c.startswith("numpy") and "torch" in medians}
    return {"name": name, "threads": threads, "seconds": medians, "spread": spread, "speedup": ratios, "errors": sorted(set(errors))}


@app.default
def run(
    what: Literal["ops", "train", "all"] = "all",
    *names: str,
    threads: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    rounds: int = 5,
    repeats: int = 3,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time NumPy against PyTorch.

    Parameters
    ----------
    what:
        Every component, the training steps, or both.
    names:
        Only these components, files or rooms.
    threads:
        Thread counts to measure at; by default 1 for components, 1 and 2 for training steps.
    rounds:
        How often the processes take turns.
    repeats:
        Measurements per turn.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.work import TRAIN, component_names
    from byhand.checks import size
    from parity.registry import select
    from parity.report import device_name

    size("benchmarks", rounds=rounds, repeats=repeats)
    chosen = [c.name for c in select(names)]
    plan = []
    if what in ("ops", "all"):
        plan += [([n for n in component_names() if n in chosen], t) for t in (threads or [1])]
    if what in ("train", "all"):
        plan += [(list(TRAIN), t) for t in (threads or [1, 2])]
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    for group, count in plan:
        measured, about[f"{count} threads"] = measure(group, count, rounds, repeats)
        rows += measured
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "date": datetime.date.today().isoformat(), "processes": about}
    show(rows, machine)
    if json_:
        json_.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 1 if any(row["errors"] for row in rows) else 0


def _room(name: str, show_room: Callable[[dict[str, Any], Console], None], rounds: int, threads: int, json_: Path | None) -> int:
    """Measure a room by processes of its own, show its figures, and keep them as JSON."""
    from benchmarks.timing import measure as measure_room
    from byhand.checks import size
    from parity.report import device_name

    size(f"benchmarks {name}", rounds=rounds, threads=threads)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "threads": threads, "date": datetime.date.today().isoformat()}
    figures = {"machine": machine} | measure_room(name, rounds, threads)
    show_room(figures, out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores, {threads} thread{'s' * (threads > 1)}.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


@app.command
def attention(
    *, rounds: int = 5, threads: int = 1, json_: Annotated[Path | None, Parameter(name="--json")] = None
) -> int:
    """Time and weigh attention: flash against plain and PyTorch, memory by length, windows, shared keys; on a GPU, every kernel.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Threads of NumPy's BLAS and of PyTorch.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.attention import show as show_attention

    return _room("attention", show_attention, rounds, threads, json_)


@app.command
def moe(
    *, rounds: int = 5, threads: int = 1, json_: Annotated[Path | None, Parameter(name="--json")] = None
) -> int:
    """Time a mixture of experts: sparse against dense, PyTorch's loop and transformers', 8 to 64 experts; on a GPU, grouped products.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Threads of NumPy's BLAS and of PyTorch.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.moe import show as show_moe

    return _room("moe", show_moe, rounds, threads, json_)


@app.command
def decode(
    *, rounds: int = 3, threads: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time the writing of text with a cache: one text, batches, contexts, kinds of cache, beams; against PyTorch and transformers.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Numbers of threads of NumPy's BLAS and of PyTorch; each is a process of its own.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.decode import show as show_decode
    from benchmarks.timing import measure as measure_room
    from byhand.checks import size
    from parity.report import device_name

    for count in threads:
        size("benchmarks decode", rounds=rounds, threads=count)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "date": datetime.date.today().isoformat()}
    figures: dict[str, Any] = {"machine": machine, "threads": {}}
    for count in threads:
        figures["threads"][str(count)] = measure_room("decode", rounds, count)
        show_decode(figures["threads"][str(count)], out)
        out.print(f"{machine['cpu']}, {machine['cores']} cores, {count} thread{'s' * (count > 1)}.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


@app.command
def memory(
    *models: str, json_: Annotated[Path | None, Parameter(name="--json")] = None, docs: Path | None = None, reuse: Path | None = None
) -> int:
    """Weigh a step of fine-tuning: peak memory of the NumPy path against its plan; on a GPU, ours beside peft's.

    Parameters
    ----------
    models:
        Presets; by default smollm2-135m, tinyllama-1.1b and llama-2-7b.
    json_:
        Write every figure as JSON.
    docs:
        A Markdown document: the table goes between its comments finetune-memory:start and finetune-memory:end.
    reuse:
        Figures of an earlier run, as --json wrote them, in place of a new one.
    """
    from benchmarks.memory import BOUNDS, document
    from benchmarks.memory import measure as measure_steps
    from benchmarks.memory import show as show_steps
    from parity.report import device_name

    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"),
               "date": datetime.date.today().isoformat()}
    if reuse is None:
        figures = {"machine": machine} | measure_steps(list(models) or list(BOUNDS), log)
    else:
        figures = json.loads(reuse.read_text(encoding="utf-8"))
    show_steps(figures, out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores.", highlight=False)
    if docs:
        document(figures, docs)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    kept = all(row["total"] <= row.get("bound", row["total"]) for row in figures["cpu"] if "total" in row)
    return 0 if kept else 1


@app.command
def quantize(
    *,
    rounds: int = 7,
    threads: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time 4-bit quantization: NumPy against bitsandbytes on the CPU.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Numbers of threads, of bitsandbytes and PyTorch; each is a process of its own.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.quantize import measure as measure_quantize
    from benchmarks.quantize import show as show_quantize
    from byhand.checks import size
    from parity.report import device_name

    for count in threads:
        size("benchmarks quantize", rounds=rounds, threads=count)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "date": datetime.date.today().isoformat()}
    figures = {"machine": machine, "processes": measure_quantize(rounds, list(threads))}
    show_quantize(figures["processes"], out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores. × is bitsandbytes' time over NumPy's.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


@app.command
def finetune(
    *parts: Literal["qlora", "ranks", "quantized", "tiers", "peft", "cost"],
    base: str | None = None,
    steps: int = 200,
    seeds: int = 3,
    rounds: int = 15,
    reuse: bool = False,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    docs: Path | None = None,
) -> int:
    """Ask what fine-tuning gives and costs: QLoRA against LoRA, LoRA against all weights, 4-bit bases, tiers, peft, ranks. One thread.

    Parameters
    ----------
    parts:
        Which of these questions; by default all.
    base:
        A base as for `byhand finetune`; by default a llama-1m that is pre-trained on the standard library's source, once.
    steps:
        Of each training.
    seeds:
        Of each comparison.
    rounds:
        How often timed steps take turns.
    reuse:
        Measure nothing: show what is in the JSON.
    json_:
        Write every figure as JSON, beside those of other parts that it holds.
    docs:
        A Markdown document: tables and figures go between its comments finetune-PART:start and finetune-PART:end.
    """
    from byhand import blas

    blas.threads(1)
    blas.tune()
    from benchmarks.finetune_report import publish
    from benchmarks.finetune_run import measure_parts, read_parts

    chosen = list(parts) or ["qlora", "ranks", "quantized", "tiers", "peft", "cost"]
    sizes = dict(steps=steps, seeds=seeds, rounds=rounds)
    figures = read_parts(chosen, json_) if reuse else measure_parts(chosen, base=base, json_=json_, log=log, **sizes)
    publish(figures, out, docs)
    return 0


def show(rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """The table: milliseconds by column, and NumPy's speed as a multiple of PyTorch's."""
    columns = sorted({c for row in rows for c in row["seconds"]}, key=lambda c: (not c.startswith("numpy"), c))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("forward + backward, ms", min_width=40)
    for title in ("threads", *columns, *(f"{c} ×" for c in columns if c.startswith("numpy"))):
        table.add_column(title, justify="right")
    for row in rows:
        times = [f"{row['seconds'][c] * 1e3:.3g}" if c in row["seconds"] else "–" for c in columns]
        ratios = [f"{row['speedup'][c]:.2f}" if c in row["speedup"] else "–" for c in columns if c.startswith("numpy")]
        table.add_row(row["name"], str(row["threads"]), *times, *ratios)
    out.print(table)
    for row in rows:
        for error in row["errors"]:
            out.print(f"{row['name']}: {error}", style="red", highlight=False)
    for threads, processes in machine["processes"].items():
        for label, about in processes.items():
            out.print(f"{threads}, {label} BLAS: {about['blas']}; torch {about['torch']}", highlight=False, style="dim")
    out.print(f"{machine['cpu']}, {machine['cores']} cores. × is torch's time over NumPy's: above 1, NumPy is faster.", highlight=False)


def main() -> int:
    """Run and return the exit code."""
    try:
        return int(app(exit_on_error=False, print_error=False, console=log) or 0)
    except (cyclopts.CycloptsError, ValueError) as error:
        log.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)


if __name__ == "__main__":
    sys.exit(main())
