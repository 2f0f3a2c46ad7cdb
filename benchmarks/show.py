"""A run as tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparing import Change, Comparison
from benchmarks.reading import Figures, Row, fastest_torch, median, peers, rows, speedup

_COLUMNS = ("numpy default", "numpy tuned", "torch", "onednn", "compiled", "cuda", "cuda with transfers", "cuda compiled")
_SHORT = {"numpy default": "numpy", "numpy tuned": "tuned", "cuda with transfers": "cuda + transfers"}
_TITLES = {"components": "components, forward and backward", "workloads": "whole workloads", "scaling": "scaling"}


def show(figures: Figures, out: Console) -> None:
    """Every row by group, what the machine can do, and what was not measured."""
    for group, title in _TITLES.items():
        chosen = rows(figures, group)
        if chosen:
            out.print(_table(title, chosen, figures["machine"]["threads"]))
            out.print()
    _show_peers(figures, out)
    for row in rows(figures):
        for column, error in row["errors"].items():
            out.print(f"{row['name']}, {column}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    for line in notes(figures):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, chosen: Sequence[Row], threads: Sequence[int]) -> Table:
    columns = [c for c in _COLUMNS if any(median(row, c) for row in chosen)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{title}, ms", overflow="fold")
    titles = ["threads"] * (len(threads) > 1) + [_SHORT.get(c, c) for c in columns]
    for heading in [*titles, "× torch", "× fastest", "roof", "bound by", "peak MiB"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in chosen:
        times = [_ms(median(row, c)) for c in columns]
        mine = "numpy default"
        ratios = [_ratio(speedup(row, mine, over)) if over else "–" for over in ("torch", fastest_torch(row))]
        rest = [_percent(row["share"].get(mine)), row["bound"], _mib(row["peak_bytes"].get("numpy"))]
        table.add_row(row["name"], *[str(row["threads"])] * (len(threads) > 1), *times, *ratios, *rest)
    return table


def _show_peers(figures: Figures, out: Console) -> None:
    chosen = [row for row in rows(figures) if peers(row) or row["unable"]]
    if not chosen:
        return
    names = sorted({name for row in chosen for name in peers(row)})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("other libraries, ms", overflow="fold")
    for heading in ("threads", "numpy", *names, *(f"× {name}" for name in names)):
        table.add_column(heading, justify="right")
    for row in chosen:
        times = [_ms(median(row, c)) for c in ("numpy default", *names)]
        table.add_row(row["name"], str(row["threads"]), *times, *(_ratio(speedup(row, "numpy default", name)) for name in names))
    out.print(table)
    out.print()


def notes(figures: Figures) -> Iterable[str]:
    """What the tables leave unsaid: the machine, its roofline, what its columns are, what is absent and why."""
    machine = figures["machine"]
    for threads, rates in machine["roofline"].items():
        gemm = ", ".join(f"{column} {rate / 1e9:.0f}" for column, rate in rates["gemm"].items())
        copy = ", ".join(f"{column} {rate / 1e9:.1f}" for column, rate in rates["copy"].items())
        yield f"Roofline, threads: {threads}. Matrix products in GFLOP/s: {gemm}; copies in GB/s: {copy}; in the cache " \
              f"{rates['add'] / 1e9:.1f} additions and {rates['exp'] / 1e9:.2f} exponentials a ns; {rates['call'] * 1e9:.0f} ns a call."
    for threads, processes in machine["processes"].items():
        for label, about in processes.items():
            yield f"Threads: {threads}, {label} BLAS: {about['blas']}; NumPy {about['numpy']}, torch {about['torch']}."
    for column, why in (machine.get("same") or {}).items():
        yield f"{column}: {why}."
    for column, why in machine["absent"].items():
        yield f"Absent: {column}: {why}."
    for row in rows(figures):
        for column, why in row["unable"].items():
            yield f"{column} cannot do {row['name']}: {why}"
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}, size {machine['size']}, {machine['seconds'] / 60:.1f} min."
    yield "× torch and × fastest: time of PyTorch eager, and of its fastest column on this CPU, over NumPy's: above 1, NumPy is faster. " \
          "roof: NumPy's share of the roofline. bound by: what takes longest at the machine's own rates."


def show_comparison(comparison: Comparison, out: Console) -> None:
    """What got slower, then what got faster."""
    for title, changes in (("slower", comparison.slower), ("faster", comparison.faster)):
        if changes:
            out.print(_changes(title, changes))
            out.print()
    for column, drift in comparison.drift.items():
        if abs(drift - 1) > 0.02:
            out.print(f"{column}: all rows together took {drift:.2f} × the time of the earlier run, which is divided out.", highlight=False)
    for title, names in (("only in the earlier run", comparison.gone), ("only in this run", comparison.new)):
        if names:
            more = " …" if len(names) > 6 else ""
            out.print(f"{len(names)} {title}: {', '.join(names[:6])}{more}", highlight=False, markup=False, soft_wrap=True)
    counts = f"{len(comparison.slower)} of {len(comparison.changes)} times slower beyond the spread, {len(comparison.faster)} faster."
    out.print(counts, highlight=False)


def _changes(title: str, changes: Sequence[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    for heading in ("threads", "column", "before, ms", "now, ms", "×", "spread explains"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in changes:
        table.add_row(c.name, str(c.threads), c.column, _ms(c.before), _ms(c.now), f"{c.ratio:.2f}", f"{1 + c.beyond:.2f}")
    return table


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3g}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: Any) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _mib(count: float | None) -> str:
    return "–" if count is None else f"{count / 2**20:.1f}"
