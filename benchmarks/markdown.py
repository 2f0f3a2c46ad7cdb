"""Numbers, tables and pictures as Markdown."""

import math
from collections.abc import Mapping, Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown, with numbers to the right."""
    if not lines:
        return "Nothing was measured."
    numbers = [all(cell[:1] in "–≥0123456789" for cell in column[1:]) for column in zip(header, *lines, strict=True)]
    rule = "|---|" + "".join("---:|" if number else "---|" for number in numbers[1:])
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)])


def time(seconds: float | None) -> str:
    """Three digits and a unit."""
    if not seconds:
        return "–"
    unit, name = next(((unit, name) for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if seconds >= unit), (1e-9, "ns"))
    return f"{three(seconds / unit)}\N{NO-BREAK SPACE}{name}"


def three(value: float) -> str:
    """A number with three digits."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def amount(rate: float) -> str:
    """A rate with three digits and the prefix of its unit."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if rate >= unit:
            return f"{three(rate / unit)} {name}"
    return f"{three(rate)} "


def times(ratio: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if ratio is None else f"{ratio:.2f}×" if ratio < 10 else f"{three(ratio)}×"


def percent(share: float | None) -> str:
    """A share, or a dash."""
    return "–" if share is None else f"{share:.0%}"


def picture(links: Mapping[str, str], name: str, said: str) -> list[str]:
    """A link to a drawing, where it was drawn."""
    return [f"![{said}]({links[name]})"] if name in links else []
