"""Figures as Markdown: one function for each name that a document may ask for."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.goals import headline, measuring, outcomes
from benchmarks.markdown import amount, percent, picture, table, three, time, times
from benchmarks.plots_curves import crossed, crossing, families, rounded, work
from benchmarks.plots_style import NAMES
from benchmarks.reading import Figures, Row, best_numpy, fastest_torch, label, median, peers, rows, speedup, tuned_column, versions

Links = Mapping[str, str]
BOUNDS = ("products", "memory", "elementwise", "calls")


def caption(figures: Figures) -> str:
    """Where and with what it was measured, in two sentences."""
    machine = figures["machine"]
    threads = " and ".join(map(str, machine["threads"]))
    used = versions(figures)
    said = ", ".join(f"{name} {used[key]}" for name, key in (("NumPy", "numpy"), ("PyTorch", "torch")) if key in used)
    blas = f", {used['blas']}" if "blas" in used else ""
    return (f"{_cpu(machine)}, {machine['cores']} cores, {threads} thread{'' if machine['threads'] == [1] else 's'}; "
            f"Python {machine['python']}, {said}{blas}; {machine['date']}. Ratios from other machines differ.")


def _machine(figures: Figures, links: Links) -> str:
    machine = figures["machine"]
    gpu = f"GPU: {machine['gpu']}." if machine.get("gpu") else "No GPU was measured."
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB of memory" if machine.get("memory_bytes") else ""
    parts = [caption(figures), f"{machine['system'].partition('-')[0]}{memory}. {gpu} Size {machine['size']}, {machine['rounds']} rounds, "
             f"{machine['seconds'] / 60:.1f} minutes."]
    lines = []
    for threads, rates in (machine.get("roofline") or {}).items():
        gemm, copy = (_rates(rates.get(kind) or {}, unit, machine) for kind, unit in (("gemm", "FLOP/s"), ("copy", "B/s")))
        simple = [f"{amount(rates[key])}/s" if rates.get(key) else "" for key in ("add", "exp")]
        lines.append((threads, gemm, copy, *simple, time(rates.get("call"))))
    if lines:
        header = ("threads", "matrix products", "copying", "additions in the cache", "exp in the cache", "a NumPy call")
        parts.append(table(header, lines))
    absent = machine.get("absent") or {}
    for column, reason in (machine.get("same") or {}).items():
        parts.append(f"{_name(column)}: {reason}.")
    if absent:
        parts.append("Not measured: " + "; ".join(f"{_name(column)} ({reason})" for column, reason in absent.items()) + ".")
    return "\n\n".join(parts)


def _goals(figures: Figures, links: Links) -> str:
    answers = {True: "yes", False: "**no**", None: "–"}
    found = outcomes(figures)
    lines = [(one.goal, one.wanted, one.row, one.measured, answers[one.met]) for one in found]
    met, measured = sum(one.met is True for one in found), sum(one.met is not None for one in found)
    said = [table(("goal", "wanted", "row", "measured", "met?"), lines), f"{met} of the {measured} that were measured are met."]
    if tuned_column(figures) == "numpy default":
        said.append("OpenBLAS chose its kernels for AVX-512 by itself here: the default is the tuned BLAS, and has its goals.")
    return "\n\n".join(said)


def _summary(figures: Figures, links: Links) -> str:
    lines = [(label(row), time(_numpy(row)), time(median(row, "torch")), _ratio(row), _ratio(row, fastest_torch(row)), row.get("bound", ""))
             for row in headline(figures)]
    header = ("one thread, forward and backward", "NumPy", "PyTorch eager", "times faster", "than PyTorch's fastest", "bound by")
    return "\n\n".join([table(header, lines), *picture(links, "summary", "Times faster than PyTorch eager")])


def _workloads(figures: Figures, links: Links) -> str:
    found = [row for row in rows(figures, "workloads") if row.get("seconds")]
    header = ("workload", "NumPy", "PyTorch eager", "times faster", "PyTorch's fastest", "than the fastest", "share of roofline",
              "bound by", "makes")
    lines = []
    for row in found:
        best, fast = best_numpy(row), fastest_torch(row)
        fastest = _fastest(row, fast)
        lines.append((label(row), time(_numpy(row)), time(median(row, "torch")), _ratio(row), fastest, _ratio(row, fast),
                      percent((row.get("share") or {}).get(best or "")), row.get("bound") or "", _rate(row)))
    return "\n\n".join([table(header, lines), *_failed(rows(figures, "workloads")),
                        *picture(links, "speedup", "Workloads against PyTorch eager")])


def _components(figures: Figures, links: Links) -> str:
    rooms: dict[str, list[Row]] = {}
    for row in rows(figures, "components", 1):
        rooms.setdefault(row["family"], []).append(row)
    parts = []
    for room, found in sorted(rooms.items()):
        timed = [row for row in found if _numpy(row) or median(row, "torch")]
        ratios = [ratio for row in timed if (ratio := speedup(row, best_numpy(row) or ""))]
        ahead = f", median {statistics.median(ratios):.2f}×, NumPy ahead in {sum(ratio > 1 for ratio in ratios)}" if ratios else ""
        lines = [(f"`{label(row, short=True)}`", time(_numpy(row)), time(median(row, "torch")), _ratio(row),
                  percent((row.get("share") or {}).get(best_numpy(row) or "")), row.get("bound") or "") for row in timed]
        shown = [table(("component", "NumPy", "PyTorch eager", "times faster", "share of roofline", "bound by"), lines)] if lines else []
        pictures = picture(links, f"speedup-{room}", f"{room}: times faster than PyTorch eager")
        count = f"{len(timed)} component{'' if len(timed) == 1 else 's'}"
        summary = f"<details>\n<summary><b>{room}</b>: {count}{ahead}</summary>"
        parts.append("\n\n".join([summary, *pictures, *shown, *_failed(found), "</details>"]))
    return "\n\n".join(parts)


def _scaling(figures: Figures, links: Links) -> str:
    lines = []
    for found in families(figures):
        sides = {column: [row for row in found if median(row, column)] for column in (best_numpy(found[0]) or "numpy default", "torch")}
        ends = [_growth(own, column) for column, own in sides.items()]
        ratios = [ratio for row in (found[0], found[-1]) if (ratio := _ratio(row)) != "–"]
        lines.append((work(found[0]), found[0]["axis"], _sizes(found), *ends, " → ".join(ratios)))
    header = ("work", "what grows", "sizes", "NumPy's time grows as", "PyTorch's", "times faster, first → last")
    return "\n\n".join([table(header, lines), *picture(links, "scaling", "Time against size"),
                        *picture(links, "threads", "What more threads give")])


def _peers(figures: Figures, links: Links) -> str:
    lines = []
    for row in rows(figures):
        for peer in peers(row):
            ratio = speedup(row, best_numpy(row) or "", peer)
            lines.append((label(row), peer, time(median(row, peer)), time(_numpy(row)), time(median(row, "torch")), times(ratio)))
    absent = [f"{column} ({reason})" for column, reason in (figures["machine"].get("absent") or {}).items()
              if column not in NAMES]
    unable = [f"{label(row)}, {peer}: {why}" for row in rows(figures) for peer, why in (row.get("unable") or {}).items()]
    said = [table(("work", "library", "its time", "NumPy", "PyTorch eager", "NumPy is times faster"), lines)] if lines else []
    return "\n\n".join([*said, *(["Absent: " + "; ".join(absent) + "."] if absent else []),
                        *(["Not able to: " + "; ".join(unable) + "."] if unable else [])]) or "No other library was measured."


def _memory(figures: Figures, links: Links) -> str:
    found = [*rows(figures, "workloads", 1), *(row for row in measuring(figures) if row["group"] == "components")]
    lines = []
    for row in found:
        peaks = row.get("peak_bytes") or {}
        if any(peaks.values()):
            ours, theirs = peaks.get("numpy"), peaks.get("torch")
            mebibytes = (f"{peak / 2**20:,.1f}" if peak else "–" for peak in (ours, theirs))
            lines.append((label(row), *mebibytes, f"{ours / theirs:.2f}" if ours and theirs else "–"))
    header = ("work", "NumPy, MiB", "PyTorch, MiB", "NumPy's of PyTorch's")
    return "\n\n".join([table(header, lines), *picture(links, "memory", "Peak memory")])


def _crossover(figures: Figures, links: Links) -> str:
    lines = []
    for found in crossed(figures):
        points = {column: [(row["at"], seconds) for row in found if (seconds := median(row, column))] for column in NAMES}
        ours = points.pop("numpy default")
        for column in ("torch", "cuda with transfers", "cuda compiled with transfers"):
            if ours and points.get(column):
                size = crossing(ours, points[column])
                lines.append((work(found[0]), found[0]["axis"], _sizes(found), _name(column), _from(size, ours[0][0])))
    said = [] if figures["machine"].get("gpu") else ["CPU only: no GPU was measured."]
    return "\n\n".join([*said, table(("work", "what grows", "sizes", "against NumPy", "is faster"), lines),
                        *picture(links, "crossover", "From which size another wins")])


def _bounds(figures: Figures, links: Links) -> str:
    lines = []
    for bound in BOUNDS:
        found = [row for row in rows(figures, threads=1) if row["group"] != "scaling" and row.get("bound") == bound and _numpy(row)]
        shares = [[share for row in found if (share := (row.get("share") or {}).get(column or best_numpy(row)))]
                  for column in (None, "torch")]
        slowest = sorted(found, key=lambda row: -(_numpy(row) or 0))[:5]
        middle = [percent(statistics.median(own)) if own else "–" for own in shares]
        lines.append((bound, str(len(found)), *middle, "; ".join(label(row) for row in slowest)))
    header = ("bound by", "rows", "NumPy's share of the roofline, median", "PyTorch's", "the slowest")
    return "\n\n".join([table(header, lines), *picture(links, "roofline", "Roofline: what is achieved and what the machine could do")])


BLOCKS: dict[str, Callable[[Figures, Links], str]] = {
    "machine": _machine, "goals": _goals, "summary": _summary, "workloads": _workloads, "components": _components, "scaling": _scaling,
    "peers": _peers, "memory": _memory, "crossover": _crossover, "bounds": _bounds,
}


def _numpy(row: Row) -> float | None:
    return median(row, best_numpy(row) or "")


def _ratio(row: Row, over: str | None = "torch") -> str:
    return times(speedup(row, best_numpy(row) or "", over or ""))


def _rate(row: Row) -> str:
    units, seconds = row.get("units"), _numpy(row)
    return f"{three(units['count'] / seconds)} {units['unit']}/s" if units and seconds and units.get("count") else ""


def _rates(measured: Mapping[str, float], unit: str, machine: Mapping[str, Any]) -> str:
    shown = [column for column in NAMES if column in measured and column not in (machine.get("same") or {})]
    return "; ".join(f"{_name(column)} {amount(measured[column])}{unit}" for column in shown)


def _fastest(row: Row, column: str | None) -> str:
    if column is None or column == "torch":
        return "eager" if column else "–"
    return f"{time(median(row, column))} ({_name(column).removeprefix('PyTorch').strip(', ')})"


def _from(size: float | None, smallest: float) -> str:
    if size is None:
        return "nowhere up to the largest"
    return "at every size" if size <= smallest else f"from about {rounded(size)} on"


def _sizes(found: Sequence[Row]) -> str:
    return f"{found[0]['at']:,.0f} to {found[-1]['at']:,.0f}"


def _growth(own: Sequence[Row], column: str) -> str:
    """The exponent of a power law through the first and the last point."""
    if len(own) < 2 or not own[0]["at"] or own[0]["at"] == own[-1]["at"]:
        return "–"
    first, last = median(own[0], column), median(own[-1], column)
    assert first is not None
    assert last is not None
    return f"size^{math.log(last / first) / math.log(own[-1]['at'] / own[0]['at']):.2f}"


def _failed(found: Sequence[Row]) -> list[str]:
    """A sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for row in found:
        for column, text in (row.get("errors") or {}).items():
            reasons.setdefault(text, []).append(f"{label(row)} in {_name(column)}")
    return [f"Not timed, because of “{reason}”: {'; '.join(those)}." for reason, those in reasons.items()]


def _cpu(machine: Mapping[str, Any]) -> str:
    return machine["cpu"].removeprefix("cpu (").removesuffix(")") if machine["cpu"].startswith("cpu (") else machine["cpu"]


def _name(column: str) -> str:
    return "NumPy" if column == "numpy" else NAMES.get(column, column)
