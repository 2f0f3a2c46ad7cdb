"""What a profile says, as tables for a terminal and as numbers for a program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from byhand.profiling.measure import Profile
from byhand.profiling.recorder import Row, components, operators

_MIB = 2**20


def table(profile: Profile, *, rows: int, of_operators: bool = False) -> Table:
    """The longest components (or operators), a run of the work; the others in one line, and the sum of all."""
    rows_of = operators if of_operators else components
    found, held = rows_of(profile.time), {row.frame.label: row for row in rows_of(profile.memory)}
    whole, on_device = profile.time.sum("time") or 1, any(row.device for row in found)
    made = Table(title="PyTorch's operators" if of_operators else f"A {profile.what} by component", title_justify="left", box=None,
                 title_style="bold", header_style="bold", pad_edge=False)
    for name in ["operator" if of_operators else "component", "calls", "self ms", "share", "total ms", *["device ms"] * on_device,
                 "net MiB", "peak MiB"]:
        text = not made.columns
        made.add_column(name, justify="left" if text else "right", no_wrap=True, min_width=None if text else max(7, len(name)))

    def add(name: str, some: Sequence[Row], *, style: str | None = None, total: bool = True) -> None:
        time = sum(row.time for row in some)
        memory = [held[row.frame.label] for row in some if row.frame.label in held]
        each = [f"{sum(row.calls for row in some) / profile.runs:,g}", _ms(time, profile), f"{time / whole:.1%}",
                _ms(some[0].total, profile) if total else "", *[_ms(sum(row.device for row in some), profile)] * on_device,
                _mib(sum(row.net for row in memory)), _mib(memory[0].peak) if total and memory else ""]
        made.add_row(name, *each, style=style)

    for row in found[:rows]:
        add(_name(row), [row])
    if found[rows:]:
        add(f"{len(found) - rows} more", found[rows:], style="dim", total=False)
    if found:
        add("all", found, style="bold", total=False)
    return made


def summary_lines(profile: Profile) -> list[str]:
    """Where the time is, in a few words; and what of it nothing above explains."""
    found, whole = components(profile.time), profile.time.sum("time") or 1
    lines = [_shares(found, whole, lambda row: row.frame.phase or ("outside" if row.frame.kind == "outside" else "neither")),
             _shares(found, whole, lambda row: "outside" if row.frame.kind == "outside" else row.frame.name.partition(".")[0])]
    inside = sum(row.time for row in operators(profile.time))
    if inside:
        lines.append(f"PyTorch's operators {inside / whole:.1%}, Python around them {1 - inside / whole:.1%}")
    cost = profile.watched / profile.plain - 1
    lines.append(f"A plain {profile.what} took {profile.plain:,.2f} ms, a watched one {profile.watched:,.2f} ms ({cost:+.0%}), of which "
                 f"{whole / profile.runs / 1e6:,.2f} ms are told of above.")
    lines.append(f"Memory: at most {_mib(profile.memory.peak)} MiB at once, above what was there before.")
    return lines


def numbers(profile: Profile) -> dict[str, Any]:
    """All of it, for a program: times in milliseconds a run, memory in bytes of one run."""
    return dict(
        work=profile.what, runs=profile.runs, plain_ms=profile.plain, watched_ms=profile.watched,
        total_ms=profile.time.sum("time") / profile.runs / 1e6, peak_bytes=profile.memory.peak,
        components=_values(profile, components(profile.time), {row.frame.label: row for row in components(profile.memory)}),
        operators=_values(profile, operators(profile.time), {row.frame.label: row for row in operators(profile.memory)}),
    )


def _values(profile: Profile, rows: Sequence[Row], held: Mapping[str, Row]) -> list[dict[str, Any]]:
    values = []
    for row in rows:
        memory = held.get(row.frame.label)
        values.append(dict(
            name=row.frame.name, phase=row.frame.phase or None, calls=row.calls / profile.runs, self_ms=row.time / profile.runs / 1e6,
            total_ms=row.total / profile.runs / 1e6, device_ms=row.device / profile.runs / 1e6,
            net_bytes=None if memory is None else memory.net, peak_bytes=None if memory is None else memory.peak,
        ))
    return values


def _shares(rows: Sequence[Row], whole: int, key: Callable[[Row], str]) -> str:
    """ "forward 41.0%, backward 52.3%, …", the largest first."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[key(row)] = sums.get(key(row), 0) + row.time
    return ", ".join(f"{name} {time / whole:.1%}" for name, time in sorted(sums.items(), key=lambda item: -item[1]))


def _name(row: Row) -> str:
    return f"outside (the {row.frame.name})" if row.frame.kind == "outside" else row.frame.label


def _ms(nanoseconds: int, profile: Profile) -> str:
    return f"{nanoseconds / profile.runs / 1e6:,.3f}"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.2f}".replace("-0.00", "0.00")
