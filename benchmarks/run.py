"""A run of the benchmark: which rows, in which columns, measured in turn, and what came of it as one dict (schema 2, see README)."""

import contextlib
import dataclasses
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import components, roofline
from benchmarks.processes import Worker, processes
from benchmarks.workload import Peer, Row, Size, peers, peers_of, workload_rows
from parity.registry import select
from parity.report import device_name

GROUPS = ("components", "workloads", "scaling")
_AGREE = 1e-4                                          # of the largest number: what float32 leaves of a training step, and no more


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much time a row gets.

    rounds : how often the processes take turns;  seconds : of one column's turn;  most : runs in one turn
    enough : after two rounds, no further one begins when a row has taken so many seconds
    """

    rounds: int = 3
    seconds: float = 0.08
    most: int = 30
    enough: float = 8.0


def choose(size: Size, names: Sequence[str] = ()) -> list[Row]:
    """The rows that the names mean; all if none are given.

    A name is a group, what `parity` takes for components (a component, a file, a room), or how a workload begins: all that fits.

    Raises
    ------
    ValueError   for a name that means nothing
    """
    everything = [*components.rows(size), *workload_rows(size)]
    if not names:
        return everything
    chosen: dict[str, Row] = {}
    for name in names:
        hits = [row for row in everything if name == row.group or _begins(row, name)]
        try:
            meant = {component.name for component in select([name])}
            hits += [row for row in everything if row.name in meant]
        except ValueError as error:
            if not hits:
                families = ", ".join(dict.fromkeys(row.family for row in everything if row.group != "components"))
                groups = ", ".join(GROUPS)
                raise ValueError(f"benchmarks needs a group ({groups}), a component or a workload ({families}): {error}") from None
        chosen |= {row.name: row for row in hits}
    return list(chosen.values())


def _begins(row: Row, name: str) -> bool:
    return row.group != "components" and row.name.lower().startswith(name.lower())


def plan(rows: Sequence[Row], threads: Sequence[int] | None) -> dict[int, list[Row]]:
    """The rows by number of threads: those a row names, or the given ones for all; never more than the machine has cores, unless given."""
    cores = os.cpu_count() or 1
    counts = sorted(set(threads) if threads else {count for row in rows for count in row.threads if count <= cores})
    return {count: [row for row in rows if threads or count in row.threads] for count in counts}


def measure(
    rows: Sequence[Row],
    size: Size,
    *,
    threads: Sequence[int] | None = None,
    effort: Effort | None = None,
    compiled: bool = True,
    with_peers: bool = True,
    quiet: bool = True,
    figures: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Measure the rows one after the other; each is yielded when it is done, and `figures` holds all that was done."""
    effort = effort or Effort()
    found = peers() if with_peers else []
    by_threads = plan(rows, threads)
    figures |= {"schema": 2, "machine": _machine(size, effort, list(by_threads)), "rows": []}
    machine = figures["machine"]
    asked_of = [p for p in found if any(p in peers_of(row, found) for row in rows)]
    machine["absent"] |= {p.name: f"{p.needs} is not installed (pip install 'byhand[peers]')" for p in asked_of if p.version is None}
    machine["peers"] = {p.name: f"{p.needs} {p.version}" for p in asked_of if p.version is not None}
    if not compiled:
        machine["absent"]["compiled"] = "not asked for"
    elif not _compiles():
        machine["absent"]["compiled"], compiled = "torch.compile needs a C++ compiler, and there is none", False
    started = time.perf_counter()
    for count, chosen in by_threads.items():
        with processes(count, size, quiet=quiet) as workers:
            bench = _Bench(workers, count, effort, compiled, [p for p in found if p.version is not None], machine)
            for row in chosen:
                if not bench.columns(row):
                    machine["absent"][row.name] = f"measured only as {', '.join(row.columns or ())}"
                    continue
                began = time.perf_counter()
                line = bench.row(row)
                figures["rows"].append(line | {"took": time.perf_counter() - began})
                machine["seconds"] = time.perf_counter() - started
                yield line


def _machine(size: Size, effort: Effort, threads: list[int]) -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return {
        "cpu": device_name("cpu").removeprefix("cpu (").removesuffix(")"), "cores": os.cpu_count(), "memory_bytes": pages,
        "system": platform.platform(), "python": platform.python_version(), "date": datetime.date.today().isoformat(), "size": size,
        "rounds": effort.rounds, "seconds": 0.0, "threads": threads, "gpu": None, "processes": {}, "roofline": {}, "absent": {},
    }


def _compiles() -> bool:
    import shutil

    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "cl") if name)


class _Bench:
    """The workers of one number of threads, and what they are asked of a row."""

    def __init__(
        self, workers: dict[str, Worker], threads: int, effort: Effort, compiled: bool, found: list[Peer], machine: dict[str, Any]
    ):
        self._workers, self._threads, self._effort, self._compiled, self._found = workers, threads, effort, compiled, found
        about = machine["processes"].setdefault(str(threads), {})
        about["default"] = workers["default"].ask("about")
        self._cuda = "cuda" in about["default"]
        if self._cuda:
            machine["gpu"] = about["default"]["cuda"]
        else:
            machine["absent"]["cuda"] = "no CUDA device"
            self._found = [p for p in found if not p.name.endswith("(cuda)")]
            machine["peers"] = {name: what for name, what in machine["peers"].items() if not name.endswith("(cuda)")}
        self._tuned = "tuned" in workers
        if self._tuned:
            about["tuned"] = workers["tuned"].ask("about")
        else:
            machine["absent"]["numpy tuned"] = "OpenBLAS has no other kernels to be told to use here"
        # the same kernels by either way are measured once
        self._differ = self._tuned and about["tuned"].get("blas") != about["default"].get("blas")
        if self._tuned and not self._differ:
            blas = about["default"]["blas"]
            machine["same"] = {"numpy tuned": f"OpenBLAS chooses the same kernels by itself ({blas}): NumPy is timed once"}
        self._rates = machine["roofline"][str(threads)] = roofline.merge(self._ask_rates())

    def _ask_rates(self) -> dict[str, dict[str, float]]:
        answers = self._workers["default"].ask("rates", columns=["numpy", "torch", "onednn"] + ["cuda"] * self._cuda)
        answers["numpy default"] = answers.pop("numpy")
        if self._tuned:
            answers["numpy tuned"] = self._workers["tuned"].ask("rates", columns=["numpy"])["numpy"]
        return answers

    def row(self, row: Row) -> dict[str, Any]:
        """Everything about one row."""
        asked = self.columns(row)
        told: dict[str, dict[str, Any]] = {}
        line: dict[str, Any] = {
            "name": row.name, "group": row.group, "family": row.family, "axis": row.axis, "at": row.at, "threads": self._threads,
            "shapes": "", "seconds": {}, "errors": {}, "unable": {},
        }
        numbers: dict[str, Any] = {}
        for label, columns in list(asked.items()):
            try:
                told[label], kept = self._prepare(label, row, columns)
            except RuntimeError as error:
                line["errors"][label] = str(error)
                del asked[label]
                continue
            line["errors"] |= told[label]["errors"]
            line["unable"] |= told[label]["unable"]
            numbers |= {_column(label, key): value for key, value in kept.items()}
        line["errors"] |= _disagreements(numbers)
        times: dict[str, list[float]] = {}
        started = time.perf_counter()
        for turn in range(self._effort.rounds):
            if turn >= 2 and time.perf_counter() - started > self._effort.enough:
                break
            for label in list(asked):
                try:
                    answer = self._workers[label].ask("time", seconds=self._effort.seconds, most=self._effort.most)
                except RuntimeError as error:
                    line["errors"][label] = str(error)
                    del asked[label]
                    continue
                for column, seconds in answer.items():
                    times.setdefault(_column(label, column), []).extend(seconds)
        for label in asked:
            with contextlib.suppress(RuntimeError):      # one that ended has nothing left to release
                self._workers[label].ask("release")
        line["seconds"] = {column: _spread(seconds) for column, seconds in times.items() if column not in line["errors"]}
        return line | self._cost(row, told, line["seconds"])

    def columns(self, row: Row) -> dict[str, list[str]]:
        """What each worker is asked for; empty where this machine has no column that can do the work."""
        allowed = row.columns
        asked = {
            "default": ["numpy", "torch", "onednn"] + ["cuda"] * self._cuda,
            "tuned": ["numpy"] if self._differ else [],
            "compiled": ["compiled"] + ["cuda compiled"] * self._cuda if row.compiled and self._compiled else [],
            "peers": [p.name for p in peers_of(row, self._found)],
        }
        kept = {label: [c for c in columns if label == "peers" or allowed is None or c in allowed] for label, columns in asked.items()}
        return {label: columns for label, columns in kept.items() if columns}

    def _prepare(self, label: str, row: Row, columns: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "numbers.npz"
            answer = self._workers[label].ask(
                "prepare", name=row.name, columns=columns, numbers=str(path), counted=label == "default"
            )
            with np.load(path) as arrays:
                return answer, {name: arrays[name] for name in arrays.files}

    def _cost(self, row: Row, told: dict[str, dict[str, Any]], seconds: dict[str, Any]) -> dict[str, Any]:
        default = told.get("default", {})
        counted = {key: default.get(key) for key in ("flops", "bytes", "elements", "operators")}
        known = {key: value for key, value in counted.items() if value is not None}
        precision = "bfloat16" if "bfloat16" in row.name else "float32"
        floors = {device: roofline.floors(known, self._rates, device, precision) for device in ("cpu", "cuda")}
        devices = {column: "cuda" if "cuda" in column else "cpu" for column in seconds}
        floor = floors["cuda" if seconds and "cpu" not in devices.values() else "cpu"]
        compiling = told.get("compiled", {}).get("prepare_seconds", {}).get("compiled")
        return counted | {
            "shapes": default.get("shapes", ""),
            "units": default.get("units"),
            "floor": floor,
            "bound": roofline.bound(floor),
            "share": {c: roofline.share(floors[devices[c]], s["median"]) for c, s in seconds.items() if s["median"]},
            "peak_bytes": {c: b for answer in told.values() for c, b in answer.get("peak_bytes", {}).items()},
            "compile_seconds": compiling,
        }


def _column(label: str, name: str) -> str:
    """The name of a worker's column in the figures: the BLAS setting belongs to NumPy's."""
    return f"numpy {label}" + name.removeprefix("numpy") if name.split("/")[0] == "numpy" else name


def _disagreements(numbers: dict[str, Any]) -> dict[str, str]:
    """Columns whose numbers are not those of NumPy (or of the first column that gives them): they do not do the same work."""
    wrong: dict[str, str] = {}
    expected: dict[str, Any] = {}
    for label, value in numbers.items():
        column, _, key = label.partition("/")
        if key not in expected:
            expected[key] = value
            continue
        reference = expected[key]
        if reference.shape != value.shape:
            wrong[column] = f"computes something else: {key} has shape {value.shape} instead of {reference.shape}"
        elif value.size and not np.abs(value.astype(np.float64) - reference).max() <= _AGREE * max(float(np.abs(reference).max()), 1e-30):
            wrong[column] = f"computes something else: {key} differs by {np.abs(value.astype(np.float64) - reference).max():.3g}"
    return wrong


def _spread(times: list[float]) -> dict[str, Any]:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {"median": median, "low": low, "high": high, "count": len(times)}
