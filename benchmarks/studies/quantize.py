"""What 4-bit quantization costs: NumPy against bitsandbytes' CPU functions, quantizing and dequantizing, whole matrices and strips.

`python -m benchmarks quantize` starts this file as a process for each number of threads:
`python -m benchmarks.studies.quantize ROUNDS THREADS` prints its figures as one line of JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

SHAPE, STRIP, BLOCK = (4096, 4096), 256, 64      # a strip is as many rows
KINDS: tuple[Literal["nf4", "fp4"], ...] = ("nf4", "fp4")


def cpu(rounds: int, threads: int) -> dict[str, Any]:
    """Every figure of one process. Seconds are medians over `rounds`, in which NumPy and bitsandbytes take turns."""
    import bitsandbytes
    import torch

    from benchmarks.about import describe

    torch.set_num_threads(threads)
    about = describe() | {"bitsandbytes": bitsandbytes.__version__, "threads": threads}
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    rows = [row for kind in KINDS for row in _format(x, kind, rounds)]
    return {"about": about, "rows": [*rows, _filled(rounds)]}


def _format(x: np.ndarray, kind: Literal["nf4", "fp4"], rounds: int) -> list[dict[str, Any]]:
    import bitsandbytes.functional as functional
    import torch

    from numpy_impl.quantize.four_bit import dequantize_4bit, quantize_4bit

    tensor = torch.from_numpy(x)
    codes, absmax = quantize_4bit(x, kind=kind, block=BLOCK)
    theirs, state = functional.quantize_4bit(tensor, blocksize=BLOCK, quant_type=kind)
    part, strip = functional.quantize_4bit(tensor[:STRIP], blocksize=BLOCK, quant_type=kind)
    same = np.array_equal(theirs.view(-1), codes) and np.array_equal(state.absmax, absmax)

    def ours(rows: int) -> np.ndarray:
        count = rows * x.shape[1]
        return dequantize_4bit(codes[:count // 2], absmax=absmax[:count // BLOCK], shape=(rows, x.shape[1]), kind=kind, block=BLOCK)

    whole, few = _shape(SHAPE), _shape((STRIP, SHAPE[1]))
    work: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"quantize, {whole}": (lambda: quantize_4bit(x, kind=kind, block=BLOCK),
                               lambda: functional.quantize_4bit(tensor, blocksize=BLOCK, quant_type=kind)),
        f"dequantize, {whole}": (lambda: ours(SHAPE[0]), lambda: functional.dequantize_4bit(theirs, state)),
        f"dequantize, {few}": (lambda: ours(STRIP), lambda: functional.dequantize_4bit(part, strip)),
    }
    return [_row(f"{kind} {name}", rounds, *calls) | {"same_bytes": bool(same)} for name, calls in work.items()]


def _filled(rounds: int) -> dict[str, Any]:
    """What a result of that size costs before it is anything: fresh memory, written once."""
    import torch

    ours, theirs = lambda: np.empty(SHAPE, dtype=np.float32).fill(1), lambda: torch.empty(SHAPE).fill_(1)
    return _row(f"fresh memory, {_shape(SHAPE)}", rounds, ours, theirs)


def _row(name: str, rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Any]:
    times: dict[str, list[float]] = {"numpy": [], "bitsandbytes": []}
    for measured in [False] + [True] * rounds:
        for column, call in (("numpy", ours), ("bitsandbytes", theirs)):
            started = time.perf_counter()
            call()
            if measured:
                times[column].append(time.perf_counter() - started)
    seconds = {column: statistics.median(values) for column, values in times.items()}
    spread = {column: (max(values) - min(values)) / seconds[column] for column, values in times.items()}
    return {"name": name, "seconds": seconds, "spread": spread, "speedup": seconds["bitsandbytes"] / seconds["numpy"]}


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def measure(rounds: int, threads: list[int]) -> dict[str, Any]:
    """{"1 threads": figures, …}, each from a process of its own."""
    return {f"{count} threads": _process(rounds, count) for count in threads}


def _process(rounds: int, threads: int) -> dict[str, Any]:
    env = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-m", "benchmarks.studies.quantize", str(rounds), str(threads)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def show(figures: dict[str, Any], out: Console) -> None:
    """A table for each number of threads."""
    for found in figures.values():
        about = found["about"]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(f"float32, blocks of {BLOCK}, {about['threads']} thread{'s' * (about['threads'] > 1)}, ms", min_width=40)
        for title in ("NumPy", "bitsandbytes", "×", "same bytes"):
            table.add_column(title, justify="right")
        for row in found["rows"]:
            times = [f"{row['seconds'][column] * 1e3:.3g}" for column in ("numpy", "bitsandbytes")]
            same = {True: "yes", False: "NO", None: "–"}[row.get("same_bytes")]
            table.add_row(row["name"], *times, f"{row['speedup']:.2f}", same)
        out.print(table)
        out.print(f"bitsandbytes {about['bitsandbytes']}; torch {about['torch']}", highlight=False, style="dim")
        out.print()


def main() -> None:
    """Print the figures of this process."""
    print(json.dumps(cpu(int(sys.argv[1]), int(sys.argv[2]))))


if __name__ == "__main__":
    main()
