"""One process with one BLAS setting and one number of threads: answers questions about rows, a line of JSON each.

A BLAS setting is read when NumPy is loaded, so a process has one; the parent keeps several and asks them in turn.
"""

import contextlib
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import components, counting, roofline
from benchmarks.about import describe
from benchmarks.peers._component import reference
from benchmarks.workload import Column, Row, Size, Unable, Work, peers_of, workload_rows

_SETTLE = 0.05    # seconds: after a product OpenBLAS's threads look for more work for some 30 ms, on cores that the next column needs


class Desk:
    """What the process holds: the row that is prepared, one work a column."""

    def __init__(self, size: Size, threads: int = 1):
        self._size, self._threads = size, threads
        self._rows: dict[str, Row] = {row.name: row for row in [*components.rows(size), *workload_rows(size)]}
        self._works: dict[str, Work] = {}

    def rates(self, columns: list[str]) -> dict[str, dict[str, float]]:
        """What each column reaches on large matrix products and copies."""
        found = {}
        for column in columns:
            with _setting(column):
                found[column] = roofline.numpy_rates() if column == "numpy" else roofline.torch_rates(Column(column).device)
        return found

    def prepare(self, name: str, columns: list[str], numbers: str, counted: bool) -> dict[str, Any]:
        """Build the row for the columns, keep what they compute in a file `numbers`, and tell what a run costs on paper."""
        self.release()
        row = self._rows[name]
        answer: dict[str, Any] = {"errors": {}, "unable": {}, "peak_bytes": {}, "prepare_seconds": {}}
        kept: dict[str, Any] = {}
        for column in columns:
            if column == "onednn" and answer.get("mm") == 0:
                continue                                 # without a product of two matrices it is the same code
            started = time.perf_counter()
            try:
                with _setting(column):
                    work = self._build(row, column)
                    if work.numbers is not None:
                        kept |= {f"{column}/{key}": np.asarray(value) for key, value in work.numbers().items()}
                    work.run()                       # the first run compiles, allocates, fills caches
                    if column in ("numpy", "torch", "cuda", "cuda compiled"):
                        answer["peak_bytes"][column] = counting.peak_bytes(work.run, column)
                if column == "torch" and counted:
                    answer |= counting.count(work.run)
                if column == "torch" or "bytes" not in answer:
                    answer |= {key: value for key in ("flops", "bytes") if (value := getattr(work, key)) is not None}
                    answer["units"] = {"unit": work.unit, "count": work.units} if work.unit else None
                self._works[column] = work
            except Unable as reason:
                answer["unable"][column] = str(reason)
            except Exception as error:
                traceback.print_exc()
                answer["errors"][column] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            answer["prepare_seconds"][column] = time.perf_counter() - started
        np.savez(numbers, **kept)
        if row.group == "components" and counted:
            answer["shapes"] = components.shapes(name, self._size)
        return answer

    def _build(self, row: Row, column: str) -> Work:
        others = peers_of(row)
        of_component = {"size": self._size} if row.group == "components" else {}
        for peer in others:
            if peer.name == column:
                return peer.build(**row.options, **of_component)
        work = row.work(Column(column))
        if of_component and others and column == "numpy":              # what other libraries are held to; ours, parity compares
            work.numbers = functools.partial(reference, row.name, self._size)
        return work

    def time(self, seconds: float, most: int) -> dict[str, list[float]]:
        """Every prepared column in turn: seconds of each of its runs, as many as fit into `seconds`, at least one and at most `most`."""
        measured: dict[str, list[float]] = {}
        for column, work in self._works.items():
            if self._threads > 1:
                time.sleep(_SETTLE)
            clock = _cuda_seconds if column.startswith("cuda") else _seconds
            with _setting(column):
                measured[column] = _repeat(functools.partial(clock, work.run), seconds, most)
                if work.with_transfers is not None:
                    moved = functools.partial(_seconds, work.with_transfers, synchronise=True)
                    measured[f"{column} with transfers"] = _repeat(moved, seconds, most)
        return measured

    def release(self) -> None:
        """Forget what is prepared, also what was compiled for it: the next row's shapes are not a change of this one's."""
        import gc

        import torch

        self._works.clear()
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()                     # the other processes have need of it


def _setting(column: str) -> Any:
    return counting.through_onednn() if column == "onednn" else contextlib.nullcontext()


def _repeat(measure: Callable[[], float], seconds: float, most: int) -> list[float]:
    times = [measure()]
    started = time.perf_counter()
    while len(times) < most and time.perf_counter() - started + times[-1] < seconds:
        times.append(measure())
    return times


def _seconds(call: Callable[[], Any], *, synchronise: bool = False) -> float:
    started = time.perf_counter()
    call()
    if synchronise:
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started


def _cuda_seconds(call: Callable[[], Any]) -> float:
    """Of the kernels, by events on the stream."""
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def main() -> None:
    """Answer `{"do": "about" | "rates" | "prepare" | "time" | "release", …}` until the input ends."""
    threads, size = int(sys.argv[1]), sys.argv[2]
    import torch

    torch.set_num_threads(threads)
    answers = sys.stdout
    sys.stdout = sys.stderr
    desk = Desk(size, threads)                                            # type: ignore[arg-type]
    questions: dict[str, Callable[..., Any]] = {"about": describe, "rates": desk.rates, "prepare": desk.prepare, "time": desk.time,
                                                "release": desk.release}
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(questions[asked.pop("do")](**asked)), file=answers, flush=True)


if __name__ == "__main__":
    main()
