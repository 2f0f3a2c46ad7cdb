"""The goals that the NumPy side was brought towards, and the rows by which each is measured."""

import dataclasses
import re
from collections.abc import Callable
from typing import Literal

from benchmarks.reading import (
    Figures,
    Row,
    best_numpy,
    fastest_torch,
    median,
    peers,
    roofline,
    rows,
    settled,
    share_of_products,
    speedup,
    tuned_column,
)


@dataclasses.dataclass(frozen=True)
class Goal:
    """One line of the table.

    row : a regular expression that a row's whole name must match;  tuned, default : what is wanted with either BLAS, None where nothing is
    measure : times faster than torch eager, than torch's fastest column, than the fastest peer; or the share of the GEMM roofline
    """

    text: str
    row: str
    tuned: float | None
    default: float | None
    threads: int = 1
    measure: Literal["torch", "fastest", "peers", "products"] = "torch"


@dataclasses.dataclass(frozen=True)
class GpuGoal:
    """A goal of an absolute rate on a GPU: at least a share of what the device was measured to do."""

    text: str
    row: str
    kind: Literal["gemm bfloat16", "copy"]
    wanted: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured for a goal: one for each BLAS setting and row. `met` is None where nothing was measured."""

    goal: str
    wanted: str
    row: str
    measured: str
    met: bool | None


def _same(wanted: float) -> tuple[float, float]:
    return wanted, wanted


_STEP = r"GPT training step, d\d.*"
GOALS: tuple[Goal, ...] = (
    Goal("GPT training step", _STEP, 2.0, 1.2),
    Goal("GPT training step, 2 threads", _STEP, 1.6, 1.05, threads=2),
    Goal("GPT training step against torch's fastest column", _STEP, *_same(1.1), measure="fastest"),
    Goal("share of the GEMM roofline in the training step", _STEP, *_same(0.75), measure="products"),
    Goal("decode", r"decode, .*", *_same(2.3)),
    Goal("decode, 2 threads", r"decode, .*", *_same(2.8), threads=2),
    Goal("attention, T = 256", r"attention, length 256", 1.9, 1.3),
    Goal("attention, T = 1024", r"attention, length 1024", 2.0, 1.3),
    Goal("attention, T = 4096", r"attention, length 4096", 1.6, 1.05),
    Goal("cross-entropy over 32k", r"cross-entropy, .*", *_same(6.0)),
    Goal("linear and cross-entropy, chunked", r"linear \+ cross-entropy, .*", 2.2, None),
    Goal("GELU", r"ops\.gelu(_tanh)?", *_same(1.5)),
    Goal("SiLU", r"ops\.silu", *_same(1.5)),
    Goal("SwiGLU", r"ops\.swiglu", *_same(1.5)),
    Goal("RMSNorm", r"ops\.rms_norm", *_same(1.7)),
    Goal("dropout, masks by Philox", r"dropout, .*", *_same(2.0)),
    Goal("layer norm", r"ops\.layer_norm", *_same(0.55)),
    Goal("AdamW against fused", r"AdamW, \d.*", *_same(0.4)),
    Goal("AdamW against torch's default", r"AdamW, torch's default, .*", *_same(3.5)),
    Goal("embedding, backward", r"embedding backward, .*", *_same(3.0)),
    Goal("MoE, top 2 of 8", r"MoE, top 2 of 8.*", 2.0, 1.25),
    Goal("training step against autograd-class and llm.c-class peers", _STEP, 5.0, 3.0, measure="peers"),
)
GPU_GOALS: tuple[GpuGoal, ...] = (
    GpuGoal("GPT-2 124M in bfloat16, compiled: share of the product peak", r"GPT-2 124M training step.*", "gemm bfloat16", 0.45),
    GpuGoal("attention forward, width 128, causal, 16k: share of the product peak", r"attention forward.*16384", "gemm bfloat16", 0.60),
    GpuGoal("memory-bound ops, fused or compiled: share of the copy bandwidth", r"ops\..*", "copy", 0.80),
)


def outcomes(figures: Figures) -> list[Outcome]:
    """Every goal beside what the figures say of it."""
    figures = settled(figures)
    return [outcome for goal in GOALS for outcome in _outcomes(figures, goal)] + [_on_gpu(figures, goal) for goal in GPU_GOALS]


def measuring(figures: Figures) -> list[Row]:
    """The rows that some goal is measured by, each once, in the order of the goals."""
    found: dict[tuple[str, int], Row] = {}
    for goal in GOALS:
        for row in _rows(figures, goal.row, goal.threads):
            found.setdefault((row["name"], row["threads"]), row)
    return list(found.values())


def headline(figures: Figures, count: int = 14) -> list[Row]:
    """The rows to show where there is no room for all, one thread: a row of each goal about components, won or lost, and of as many
    families of workloads as have place, those with a goal first."""
    compared = [row for row in rows(figures, threads=1) if speedup(row, best_numpy(row) or "")]
    workloads: dict[str, Row] = {}
    components: dict[int, Row] = {}
    for row in compared:
        if row["group"] == "workloads":
            kept = workloads.setdefault(row["family"].partition(",")[0], row)
            if median(row, "compiled") and not median(kept, "compiled"):
                workloads[row["family"]] = row
        elif row["group"] == "components" and _first_goal(row) < len(GOALS):
            components.setdefault(_first_goal(row), row)
    others = [row for _, row in sorted(components.items())]
    return [*sorted(workloads.values(), key=_first_goal)[:count - len(others)], *others]


def _first_goal(row: Row) -> int:
    return next((i for i, goal in enumerate(GOALS) if re.fullmatch(goal.row, row["name"])), len(GOALS))


def _rows(figures: Figures, pattern: str, threads: int) -> list[Row]:
    return [row for row in rows(figures, threads=threads) if re.fullmatch(pattern, row["name"])]


def _outcomes(figures: Figures, goal: Goal) -> list[Outcome]:
    tuned = tuned_column(figures)
    asked = [("tuned", goal.tuned, tuned), ("default", goal.default, "numpy default")]
    if goal.tuned == goal.default:                      # one line suffices, of the better column
        asked = [("", goal.tuned, tuned or "numpy default")]
    elif tuned == "numpy default":                      # the machine chose the tuned kernels by itself: only their goal is asked
        asked = asked[:1]
    measured = _rows(figures, goal.row, goal.threads)
    found = []
    for blas, wanted, column in asked:
        if wanted is None:
            continue
        text = f"{goal.text}{f' ({blas} BLAS)' if blas else ''}"
        how = f"≥ {wanted:.0%}" if goal.measure == "products" else f"≥ {wanted:g}×"
        if not measured:
            found.append(Outcome(text, how, "", "no row measures this", None))
        for row in measured:
            value = None if column is None else _MEASURES[goal.measure](figures, row, column)
            if value is None:
                said = (row.get("errors") or {}).get(column or "", "not measured")
                found.append(Outcome(text, how, row["name"], said, None))
            else:
                said = f"{value:.0%}" if goal.measure == "products" else f"{value:.2f}×"
                found.append(Outcome(text, how, row["name"], said, value >= wanted))
    return found


def _against_fastest(figures: Figures, row: Row, column: str) -> float | None:
    other = fastest_torch(row)
    return speedup(row, column, other) if other else None


def _against_peers(figures: Figures, row: Row, column: str) -> float | None:
    named = [name for name in peers(row) if re.search(r"autograd|numpy-ml|thinc|llm\.c", name)]
    return speedup(row, column, named[0]) if named else None


_MEASURES: dict[str, Callable[[Figures, Row, str], float | None]] = {
    "torch": lambda figures, row, column: speedup(row, column),
    "fastest": _against_fastest,
    "peers": _against_peers,
    "products": lambda figures, row, column: share_of_products(figures, row, column),
}


def _on_gpu(figures: Figures, goal: GpuGoal) -> Outcome:
    how = f"≥ {goal.wanted:.0%}"
    if not figures.get("machine", {}).get("gpu"):
        return Outcome(goal.text, how, "", "no GPU measured", None)
    column = "cuda compiled"
    shares = []
    for row in _rows(figures, goal.row, 1):
        used = column if median(row, column) else "cuda"
        rate, seconds = roofline(figures, 1, goal.kind, used), median(row, used)
        amount = row.get("flops" if goal.kind != "copy" else "bytes")
        if rate and seconds and amount and (goal.kind != "copy" or row.get("bound") == "memory"):
            shares.append((amount / rate / seconds, row["name"]))
    if not shares:
        return Outcome(goal.text, how, "", "no row measures this", None)
    least, name = min(shares)
    return Outcome(goal.text, how, name, f"{least:.0%}", least >= goal.wanted)
