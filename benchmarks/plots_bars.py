"""Bars: how many times faster than PyTorch, what a second thread gives, and peak memory."""

import math
from typing import Any

from benchmarks.goals import headline, measuring
from benchmarks.markdown import times as ratio_text
from benchmarks.plots_style import COLORS, INK, MARKERS, NAMES, legend, times
from benchmarks.reading import Figures, Row, best_numpy, label, median, rows, speedup, spread

NUMPY = ("numpy default", "numpy tuned")
LEAST = 0.01                     # MiB that are drawn
BESIDE = ("onednn", "compiled", "cuda", "cuda compiled")


def rooms_drawn(figures: Figures) -> list[str]:
    """Rooms with at least one component that both sides were timed on."""
    return sorted({row["family"] for row in rows(figures, "components", 1) if _compared(row)})


def draw_speedup(figures: Figures, figure: Any, room: str | None = None) -> bool:
    """NumPy's bars from the line of PyTorch eager, other columns of PyTorch as marks: of a room, or of workloads and what has a goal."""
    if room is not None:
        parts = [(f"{room}: forward and backward, 1 thread", [row for row in rows(figures, "components", 1) if row["family"] == room])]
    else:
        parts = [(f"workloads, {threads} thread{'s' if threads > 1 else ''}", rows(figures, "workloads", threads))
                 for threads in sorted({row["threads"] for row in rows(figures, "workloads")})]
        parts.append(("components with a goal, 1 thread", [row for row in measuring(figures) if row["group"] == "components"]))
    return _speedup(figure, parts, short=room is not None)


def draw_summary(figures: Figures, figure: Any) -> bool:
    """The few rows that stand for all."""
    return _speedup(figure, [("NumPy against PyTorch eager, 1 thread", headline(figures))])


def _speedup(figure: Any, parts: list[tuple[str, list[Row]]], *, short: bool = False) -> bool:
    parts = [(title, sorted(filter(_compared, found), key=_order)) for title, found in parts]
    parts = [(title, found) for title, found in parts if found]
    if not parts:
        return False
    count = sum(len(found) for _, found in parts)
    figure.set_size_inches(9, 1.3 + 0.5 * len(parts) + 0.24 * count)
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=[len(found) + 1 for _, found in parts])[:, 0]
    drawn: dict[str, Any] = {}
    for axis, (title, found) in zip(panels, parts, strict=True):
        for place, row in enumerate(found):
            _speedup_bars(axis, row, place, drawn)
        axis.set_title(title)
        _categories(axis, [label({**row, "threads": 1}, short=short) for row in found])
        axis.axvline(1, color=INK, lw=1.2)
    _ratio_axis(panels[-1])
    panels[-1].set_xlabel("times faster than PyTorch eager (the line); further right is faster")
    legend(figure, list(drawn.values()))
    return True


def _speedup_bars(axis: Any, row: Row, place: int, drawn: dict[str, Any]) -> None:
    columns = [column for column in NUMPY if speedup(row, column)]
    height = 0.72 / len(columns)
    for i, column in enumerate(columns):
        ratio = speedup(row, column)
        assert ratio is not None
        y = place + (i - (len(columns) - 1) / 2) * height
        bar = axis.barh(y, ratio - 1, left=1, height=height * 0.92, color=COLORS[column], label=NAMES[column])
        drawn.setdefault(column, bar)
        ends = spread(row, column)
        if ends is not None:
            axis.plot(ends, (y, y), color=INK, lw=0.9, alpha=0.7, solid_capstyle="butt")
    shown = best_numpy(row) or columns[0]
    axis.annotate(ratio_text(speedup(row, shown)), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    for column in BESIDE:
        ratio = speedup(row, column)
        if ratio:
            drawn.setdefault(column, _mark(axis, column, ratio, place))


def draw_threads(figures: Figures, figure: Any) -> bool:
    """How much faster each workload becomes with more threads, a mark for each side."""
    found = []
    for row in rows(figures, "workloads"):
        alone = next((one for one in rows(figures, "workloads", 1) if one["name"] == row["name"]), None)
        if row["threads"] > 1 and alone is not None:
            gains = {column: one / more for column in COLORS if not column.startswith("cuda")
                     if (one := median(alone, column)) and (more := median(row, column))}
            if gains:
                found.append((row, gains))
    if not found:
        return False
    figure.set_size_inches(9, 1.7 + 0.36 * len(found))
    axis = figure.subplots()
    drawn: dict[str, Any] = {}
    for place, (row, gains) in enumerate(found):
        axis.plot((row["threads"],) * 2, (place - 0.4, place + 0.4), color=INK, lw=1.2, ls=":")
        for i, (column, gain) in enumerate(gains.items()):
            y = place + 0.5 * (i / (len(gains) - 1) - 0.5) if len(gains) > 1 else place      # one below the other, for they are often equal
            drawn.setdefault(column, _mark(axis, column, gain, y))
    axis.axvline(1, color=INK, lw=1.2)
    _categories(axis, [row["name"] if len({row["threads"] for row, _ in found}) == 1 else label(row) for row, _ in found])
    _ratio_axis(axis)
    axis.set_title("what more threads give" if len(many := {row["threads"] for row, _ in found}) > 1 else f"what {min(many)} threads give")
    axis.set_xlabel("times faster than with one thread (dotted: as many times as there are threads)")
    legend(figure, [drawn[column] for column in COLORS if column in drawn])
    return True


def draw_memory(figures: Figures, figure: Any) -> bool:
    """Peak memory of the workloads and of the components with a goal, beyond what is there before."""
    sides = {"numpy": "numpy default", "torch": "torch", "cuda": "cuda"}
    candidates = [*rows(figures, "workloads", 1), *(row for row in measuring(figures) if row["group"] == "components")]
    found = [row for row in candidates if any((row.get("peak_bytes") or {}).values())]
    if not found:
        return False
    found.sort(key=lambda row: -max(filter(None, row["peak_bytes"].values())))
    present = [side for side in sides if any((row["peak_bytes"] or {}).get(side) for row in found)]
    figure.set_size_inches(9, 1.5 + (0.12 + 0.16 * len(present)) * len(found))
    axis = figure.subplots()
    drawn: dict[str, Any] = {}
    height = 0.76 / len(present)
    for place, row in enumerate(found):
        for i, side in enumerate(present):
            peak = row["peak_bytes"].get(side)
            if peak:
                y = place + (i - (len(present) - 1) / 2) * height
                bar = axis.barh(y, peak / 2**20, height=height * 0.9, color=COLORS[sides[side]], label=NAMES[sides[side]])
                drawn.setdefault(side, bar)
                said = f"< {LEAST}" if peak < LEAST * 2**20 else f"{peak / 2**20:,.3g}" if peak < 2**30 else f"{peak / 2**20:,.0f}"
                axis.annotate(said, (max(peak / 2**20, LEAST), y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7,
                              color="#444444")
    axis.set_xscale("log")
    least = min(peak for row in found for peak in row["peak_bytes"].values() if peak) / 2**20
    axis.set_xlim(left=max(10.0 ** math.floor(math.log10(least)), LEAST))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title("peak memory, 1 thread")
    axis.set_xlabel("MiB")
    _categories(axis, [label(row) for row in found])
    legend(figure, list(drawn.values()))
    return True


def _mark(axis: Any, column: str, x: float, y: float) -> Any:
    mark, = axis.plot(x, y, MARKERS[column], ms=5.5, mec="white", mew=0.6, color=COLORS[column], ls="none", label=NAMES[column])
    return mark


def _compared(row: Row) -> bool:
    return any(speedup(row, column) for column in NUMPY)


def _order(row: Row) -> float:
    return -(speedup(row, best_numpy(row) or "") or 0)


def _categories(axis: Any, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8.5)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")


def _ratio_axis(axis: Any) -> None:
    axis.set_xscale("log", base=2)
    low, high = axis.get_xlim()
    low, high = min(math.floor(math.log2(low)), -1), max(math.ceil(math.log2(high)), 1)
    axis.set_xlim(2.0 ** low, 2.0 ** high)
    every = max(1, (high - low) // 8)
    axis.set_xticks([2.0 ** i for i in range(low, high + 1) if i % every == 0])
    axis.xaxis.set_major_formatter(times)
    axis.minorticks_off()
