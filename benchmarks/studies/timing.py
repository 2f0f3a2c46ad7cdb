"""What the benchmarks of several rooms share: calls that take turns, processes of their own for each BLAS setting, tables."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table


def in_turn(rounds: int, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each call; they alternate, after one unmeasured round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for measured in [False] + [True] * rounds:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if measured:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(module: str, rounds: int, threads: int) -> dict[str, Any]:
    """{"cpu": {BLAS setting: figures}, "cuda": figures, where there is such a device}, each from a process of its own."""
    from byhand import blas

    plain = {name: value for name, value in os.environ.items() if name != blas.VARIABLE}
    tuned = dict(plain)
    settings = {"default": plain} | ({"tuned": tuned} if blas.tune(tuned, loaded=False) else {})
    figures: dict[str, Any] = {"cpu": {name: _process(module, "cpu", rounds, threads, env) for name, env in settings.items()}}
    if any("cuda" in process["about"] for process in figures["cpu"].values()):
        figures["cuda"] = _process(module, "cuda", rounds, threads, plain)
    return figures


def _process(module: str, what: str, rounds: int, threads: int, env: dict[str, str]) -> dict[str, Any]:
    env = env | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-m", f"benchmarks.studies.{module}", what, str(rounds), str(threads)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(cpu: Callable[[int, int], dict[str, Any]], cuda: Callable[[int], dict[str, Any]]) -> None:
    """What such a process does: print cpu(rounds, threads) or cuda(rounds), as its arguments say, as one line of JSON."""
    what, rounds, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(cuda(rounds) if what == "cuda" else cpu(rounds, threads)))


def table(out: Console, titles: list[str], rows: list[list[str]]) -> None:
    """Print a table whose first column tells what the row is, and whose others are numbers."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(titles):
        shown.add_column(title, justify="right" if i else "left", min_width=30 if not i else 0)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
    out.print()


def ms(seconds: float) -> str:
    """Seconds as milliseconds, three digits."""
    return f"{seconds * 1e3:.3g}"


def mib(count: float) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.1f}"


def transformers_version() -> str | None:
    """The version of transformers; None where it is not installed."""
    try:
        import transformers
    except ImportError:
        return None
    return transformers.__version__
