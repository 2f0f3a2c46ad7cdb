"""Curves: time against what grows, and the size from which another column wins."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.plots_style import COLORS, FAINT, INK, MARKERS, NAMES, legend
from benchmarks.reading import Figures, Row, median, rows

ACROSS = 3                       # panels in a line
# the columns whose sizes are compared
WANTED = ("numpy default", "torch", "cuda with transfers", "cuda compiled with transfers")
Points = list[tuple[float, float]]


def draw_scaling(figures: Figures, figure: Any) -> bool:
    """A panel for each curve but those over elements: seconds against what grows, with a guide where twice as much takes twice as long."""
    curves = [found for found in families(figures)
              if found[0]["axis"] != "elements" and any(len(points) > 1 for points in _curves(found).values())]
    if not curves:
        return False
    drawn: dict[str, Any] = {}
    for axis, found in zip(_panels(figure, len(curves)), curves, strict=True):
        lines = _curves(found)
        _plot(axis, lines, drawn)
        start, end = next(iter(lines.values()))[0], max(points[-1][0] for points in lines.values())
        axis.set(xscale="log", yscale="log", ylim=_around(lines))
        guide, = axis.plot((start[0], end), (start[1], start[1] * end / start[0]), color=FAINT, lw=1, ls=":",
                           label="twice as much, twice as long")
        drawn["guide"] = guide
        _finish(axis, [row["at"] for row in found], found[0]["axis"])
        axis.set_title(_wrapped(f"{work(found[0])} by {found[0]['axis']}"))
    legend(figure, [drawn[name] for name in (*COLORS, *sorted(drawn.keys() - COLORS.keys())) if name in drawn])
    return True


def work(row: Row) -> str:
    """What a curve is about, without the name of its axis."""
    return row["family"].removesuffix(f" by {row['axis']}")


def crossed(figures: Figures) -> list[list[Row]]:
    """The curves over elements, or all curves where there is none, that have two columns to compare."""
    known = families(figures)
    known = [found for found in known if found[0]["axis"] == "elements"] or known
    return [found for found in known if sum(len(points) > 1 for points in _curves(found, WANTED).values()) > 1]


def draw_crossover(figures: Figures, figure: Any) -> bool:
    """Seconds against elements on the CPU and, transfers counted, on the GPU; a line where the order changes for good."""
    gpu = "cuda with transfers"
    shown = crossed(figures)
    if not shown:
        return False
    has_gpu = any(gpu in _curves(found, WANTED) for found in shown)
    drawn: dict[str, Any] = {}
    for axis, found in zip(_panels(figure, len(shown)), shown, strict=True):
        lines = _curves(found, WANTED)
        _plot(axis, lines, drawn)
        notes = []
        for column, points in lines.items():
            said = crossing(lines["numpy default"], points) if column != "numpy default" and "numpy default" in lines else None
            if said is not None and said > min(x for x, _ in points):
                axis.axvline(said, color=COLORS[column], lw=1, ls="--")
            notes.append(_note(column, said, lines))
        axis.set_title(_wrapped(work(found[0])))
        _finish(axis, [row["at"] for row in found], found[0]["axis"])
        axis.text(0.02, 0.98, "\n".join(filter(None, notes)), transform=axis.transAxes, va="top", fontsize=7.5, color=INK,
                  bbox=dict(fc="white", ec="none", alpha=0.85, pad=1))
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.35)                       # room for the notes
    title = "from which size another wins, transfers counted" if has_gpu else "from which size another wins: CPU only, no GPU was measured"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    legend(figure, [drawn[column] for column in WANTED if column in drawn])
    return True


def crossing(ours: Points, theirs: Points) -> float | None:
    """The size from which the other is faster, up to the largest; between measured sizes along straight lines of the log-log picture."""
    sizes = sorted({x for x, _ in ours} & {x for x, _ in theirs})
    own, other = dict(ours), dict(theirs)
    gaps = [math.log(other[x] / own[x]) for x in sizes]                       # below 0: the other is faster
    if not gaps or gaps[-1] >= 0:
        return None
    first = next((i for i in reversed(range(len(gaps))) if gaps[i] >= 0), None)
    if first is None:
        return sizes[0]
    left, right = math.log(sizes[first]), math.log(sizes[first + 1])
    return math.exp(left + (right - left) * gaps[first] / (gaps[first] - gaps[first + 1]))


def families(figures: Figures) -> list[list[Row]]:
    """The rows of each curve, one thread, sorted by what grows; curves of one axis stand together."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows(figures, "scaling"):
        if row.get("axis") and row.get("at") is not None and row["threads"] == 1:
            found.setdefault((row["axis"], row["family"]), []).append(row)
    return [sorted(curve, key=lambda row: row["at"]) for _, curve in sorted(found.items())]


def _curves(found: Sequence[Row], columns: Iterable[str] = tuple(COLORS)) -> dict[str, Points]:
    lines = {column: [(float(row["at"]), seconds) for row in found if row["at"] > 0 and (seconds := median(row, column))]
             for column in columns}
    return {column: points for column, points in lines.items() if points}


def _panels(figure: Any, count: int) -> list[Any]:
    across = 2 if count == 4 else min(ACROSS, count)
    down = math.ceil(count / across)
    figure.set_size_inches(max(3.4 * across, 4.6), 0.8 + 2.9 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axis in panels[count:]:
        axis.remove()
    return list(panels[:count])


def _plot(axis: Any, lines: dict[str, Points], drawn: dict[str, Any]) -> None:
    for column, points in lines.items():
        style = dict(ls=(0, (4, 2))) if column.endswith("transfers") else {}
        line, = axis.plot(*zip(*points, strict=True), marker=MARKERS[column], ms=4.5, lw=1.6, color=COLORS[column], label=NAMES[column],
                          **style)
        drawn.setdefault(column, line)


def _finish(axis: Any, sizes: Sequence[float], name: str) -> None:
    axis.set(xscale="log", yscale="log", xlabel=name)
    axis.minorticks_off()
    axis.set_xticks(_spaced(sizes), [_count(size) for size in _spaced(sizes)], fontsize=8)
    low, high = axis.get_ylim()
    if high < 30 * low:                                                        # few powers of ten: ticks between them
        axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    axis.yaxis.set_major_formatter(_seconds)


def _around(lines: dict[str, Points]) -> tuple[float, float]:
    seconds = [y for points in lines.values() for _, y in points]
    return min(seconds) / 1.5, max(seconds) * 1.5


def _spaced(sizes: Sequence[float]) -> list[float]:
    kept = sorted(set(sizes))
    return kept if len(kept) <= 6 else kept[:: math.ceil(len(kept) / 6)]


def _count(size: float) -> str:
    for unit, name in ((2**20, "Mi"), (2**10, "Ki")):
        if size >= unit and size % unit == 0:
            return f"{size / unit:g} {name}" if size >= 2**14 else f"{size:g}"
    return f"{size:g}"


def _seconds(value: float, _: Any = None) -> str:
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= unit * 0.999:
            return f"{value / unit:g} {name}"
    return f"{value * 1e9:g} ns"


def _note(column: str, said: float | None, lines: dict[str, Points]) -> str | None:
    if column == "numpy default" or "numpy default" not in lines:
        return None
    if said is None:
        return f"{NAMES[column]}: not faster at the largest size"
    smallest = min(x for x, _ in lines[column])
    return f"{NAMES[column]}: faster " + ("at every size" if said <= smallest else f"from about {rounded(said)} on")


def rounded(size: float) -> str:
    """Two digits are known of where two curves cross."""
    digits = 10 ** max(math.floor(math.log10(size)) - 1, 0)
    return f"{round(size / digits) * digits:,.0f}"


def _wrapped(title: str, width: int = 34) -> str:
    if len(title) <= width:
        return title
    head, _, tail = title[:width].rpartition(" ")
    return f"{head}\n{tail}{title[width:]}"
