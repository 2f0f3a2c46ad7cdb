"""The roofline: what each row achieves beside what the machine could do at its arithmetic intensity."""

import itertools
from typing import Any

import numpy as np

from benchmarks.goals import measuring
from benchmarks.plots_style import COLORS, INK, MARKERS, NAMES, legend
from benchmarks.reading import Figures, Row, best_numpy, label, median, operations, roofline, rows

SIDES = ("numpy", "torch", "cuda")
_BESIDE = ((5, 0, "left", "center"), (-5, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top"))
_CANDIDATES = 90                 # names that are tried
LEAST_SECONDS = 20e-6            # below, a row measures the call and not the work


def draw_roofline(figures: Figures, figure: Any) -> bool:
    """Operations per byte against operations per second, one thread, with both ceilings of each side; names where they can be read."""
    points = [(row, column, *place) for row in rows(figures, threads=1) if row["group"] != "scaling"
              for column in _columns(row) if (place := _place(row, column))]
    if not points:
        return False
    figure.set_size_inches(9, 6.2)
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log")
    drawn: dict[str, Any] = {}
    for column in dict.fromkeys(column for _, column, _, _ in points):
        for group, size, alpha in (("components", 14, 0.55), ("workloads", 42, 0.95)):
            own = [(x, y) for row, of, x, y in points if of == column and row["group"] == group]
            if own:
                filled = column.startswith("numpy")              # the others are rings, so that neither hides the other
                style = dict(color=COLORS[column], lw=0.5, ec="white") if filled else dict(fc="none", ec=COLORS[column], lw=1.3)
                marks = axis.scatter(*zip(*own, strict=True), s=size, marker=MARKERS[column], alpha=alpha, label=NAMES[column], zorder=3,
                                     **style)
                drawn[column] = marks
    xs, ys = [x for *_, x, _ in points], [y for *_, y in points]
    low, high = min(xs) / 2, max(xs) * 2.5
    for i, column in enumerate(drawn):
        _ceilings(axis, figures, column, low, high, (4 * i, (4, 4 * max(len(drawn) - 1, 1))))
    axis.set_xlim(low, high)
    axis.set_ylim(max(min(ys) / 2, 1e6), axis.get_ylim()[1])
    axis.set_title("roofline, one thread: large marks are workloads, small ones components")
    axis.set_xlabel("arithmetic intensity: operations per byte that must be moved")
    axis.set_ylabel("achieved: operations per second")
    axis.yaxis.set_major_formatter(_rate)
    axis.xaxis.set_major_formatter("{x:g}")
    legend(figure, list(drawn.values()))
    figure.draw_without_rendering()
    _names(axis, figures, points)
    return True


def _columns(row: Row) -> list[str]:
    first = best_numpy(row)
    return [*([first] if first else []), "torch", "cuda"]


def _place(row: Row, column: str) -> tuple[float, float] | None:
    seconds, work, moved = median(row, column), operations(row), row.get("bytes")
    if not seconds or not work or not moved or seconds < LEAST_SECONDS:
        return None
    return work / moved, work / seconds


def _ceilings(axis: Any, figures: Figures, column: str, low: float, high: float, dashes: tuple[int, tuple[int, int]]) -> None:
    gemm, copy = roofline(figures, 1, "gemm", column), roofline(figures, 1, "copy", column)
    if not gemm or not copy:
        return
    ridge = gemm / copy                                        # from here on the products are the limit
    style = dict(color=COLORS[column], lw=1.6, alpha=0.9, zorder=2)
    axis.plot((low, max(ridge, low)), (copy * low, copy * max(ridge, low)), ls=dashes, **style)
    axis.plot((min(ridge, high), high), (gemm, gemm), **style)


def _rate(value: float, _: Any = None) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:g} {name}FLOP/s"
    return f"{value:g}"


def _names(axis: Any, figures: Figures, points: list[Any]) -> None:
    """Write a name beside a mark where it covers no other name and no large mark; workloads and goals come first."""
    goals = {row["name"] for row in measuring(figures)}
    ranked = sorted((point for point in points if point[1] != "torch"),
                    key=lambda point: (point[0]["group"] != "workloads", point[0]["name"] not in goals, -(median(point[0], point[1]) or 0)))
    frame = axis.get_window_extent()
    marks = axis.transData.transform([(x, y) for _, _, x, y in points])
    large = np.array([row["group"] == "workloads" or row["name"] in goals for row, *_ in points])
    taken: list[Any] = []
    for row, _, x, y in ranked[:_CANDIDATES]:
        text = axis.annotate(label(row, short=True), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=6.5, color=INK, zorder=4,
                             bbox=dict(fc="white", ec="none", alpha=0.7, pad=0.3))
        size = text.get_window_extent()
        for allowed, (dx, dy, across, up) in itertools.product((0, 1), _BESIDE):       # marks under it: none, or else one
            at = axis.transData.transform((x, y)) + np.array((dx, dy)) * axis.figure.dpi / 72
            left = at[0] - size.width * {"left": 0, "center": 0.5, "right": 1}[across]
            bottom = at[1] - size.height * {"bottom": 0, "center": 0.5, "top": 1}[up]
            box = size.from_bounds(left - 1.5, bottom - 1.5, size.width + 3, size.height + 3)
            under = ((marks > box.min) & (marks < box.max)).all(axis=1)
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            if inside and under.sum() <= allowed and not (under & large).any() and not any(box.overlaps(other) for other in taken):
                text.set(position=(dx, dy), ha=across, va=up)
                taken.append(box)
                break
        else:
            text.remove()
