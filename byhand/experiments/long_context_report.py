"""What came of the long-context experiment, for people: tables, files, and a figure (which needs matplotlib, the `plot` extra)."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from byhand.experiments.long_context import SAME_AT_EVERY_FACTOR, SCHEMES, Row
from byhand.run_directory import write_whole


def table(rows: Sequence[Row], *, last_quarter: bool = False) -> str:
    """Markdown: perplexity by scheme and length, every scheme set for the length that it reads, and how far from the trained model's at T.

    last_quarter : over the last quarter of every window alone, and compared with the trained model's last quarter
    """
    trained = _value(_trained(rows), last_quarter)
    lengths = sorted({row.length for row in rows})
    lines = ["| rope scaling | adapted | " + " | ".join(f"{length:,} tokens" for length in lengths) + " |",
             "|---|---|" + "---:|" * len(lengths)]
    for adapted in _settings(rows):
        for scheme in _schemes(rows):
            found = {row.length: _value(row, last_quarter) for row in set_for_its_length(rows, scheme, adapted)}
            cells = [f"{found[length]:.3f} ({found[length] / trained - 1:+.1%})" if length in found else "" for length in lengths]
            if found:
                lines.append(f"| {scheme} | {f'{adapted} steps' if adapted else 'no'} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cost_table(rows: Sequence[Row]) -> str:
    """Markdown: what being set for a longer text costs on one of T tokens, by scheme and by what it is set for."""
    trained, shortest = _trained(rows), min(row.length for row in rows)
    factors = sorted({row.factor for row in rows if row.factor > 1})
    lines = ["| rope scaling | adapted | " + " | ".join(f"for {factor * shortest:,}" for factor in factors) + " |",
             "|---|---|" + "---:|" * len(factors)]
    for adapted in _settings(rows):
        for scheme in _schemes(rows):
            found = {row.factor: row.perplexity for row in rows
                     if (row.scheme, row.adapted, row.length) == (scheme, adapted, shortest) and row.factor > 1}
            if scheme in SAME_AT_EVERY_FACTOR and not adapted:
                found = dict.fromkeys(factors, *found.values()) if found else {}
            cells = [f"{found[f]:.3f} ({found[f] / trained.perplexity - 1:+.1%})" if f in found else "" for f in factors]
            if found:
                lines.append(f"| {scheme} | {f'{adapted} steps' if adapted else 'no'} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def set_for_its_length(rows: Sequence[Row], scheme: str, adapted: int) -> list[Row]:
    """Of a scheme's measurements those at the length it was set for, by length; unscaled, that at T belongs to them."""
    shortest = min(row.length for row in rows)
    always = scheme in SAME_AT_EVERY_FACTOR and not adapted
    found = {row.length: row for row in rows
             if (row.scheme, row.adapted) == (scheme, adapted) and (always or row.length == row.factor * shortest)}
    return sorted(found.values(), key=lambda row: row.length)


def _trained(rows: Sequence[Row]) -> Row:
    return next(row for row in rows if (row.factor, row.adapted) == (1, 0))


def _value(row: Row, last_quarter: bool) -> float:
    return row.last_perplexity if last_quarter else row.perplexity


def _settings(rows: Sequence[Row]) -> list[int]:
    return sorted({row.adapted for row in rows})


def _schemes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.scheme for row in rows))


def write(rows: Sequence[Row], directory: str | Path) -> list[Path]:
    """Write table.md, rows.csv, rows.json and, with matplotlib installed, long_context.png; the paths of what was written."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shortest = min(row.length for row in rows)
    text = (
        f"Perplexity over all positions, and how far from the trained model's at {shortest:,} tokens:\n\n{table(rows)}\n"
        f"The same over the last quarter of each window:\n\n{table(rows, last_quarter=True)}\n"
        f"Perplexity on windows of {shortest:,} tokens of what is set for longer ones:\n\n{cost_table(rows)}"
    )
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    names = [name for name in Row._fields if not name.startswith("by_")]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    content = {"table.md": text, "rows.csv": lines.getvalue(), "rows.json": json.dumps([row._asdict() for row in rows], indent=1) + "\n"}
    for name, written in content.items():
        write_whole(directory / name, written.encode())
    paths = [directory / name for name in content]
    try:
        draw(rows, directory / "long_context.png")
    except ValueError:
        return paths
    return [*paths, directory / "long_context.png"]


_COLORS = dict(zip(SCHEMES, ("#555555", "#1b6ca8", "#f18f01", "#8e44ad", "#2e8b57", "#c0392b", "#00a3a3"), strict=True))


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG: perplexity by length, without adaptation and with; below, the loss by position at the longest length.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter
    except ImportError as error:
        raise ValueError("draw needs matplotlib: pip install 'byhand[plot]'") from error

    shortest, longest = min(row.length for row in rows), max(row.length for row in rows)
    trained, settings = _trained(rows), _settings(rows)
    figure = Figure(figsize=(5 * len(settings) + 1, 7), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(settings), squeeze=False, sharey="row")
    for column, adapted in enumerate(settings):
        above, below = panels[:, column]
        for scheme in _schemes(rows):
            style = dict(color=_COLORS[scheme], lw=1.6, label=scheme)
            reached = set_for_its_length(rows, scheme, adapted)
            if reached and reached[0].length > shortest:
                reached.insert(0, trained)         # where every scheme comes from
            above.plot([row.length for row in reached], [row.perplexity for row in reached], "o-", ms=4, **style)
            for row in reached[-1:]:
                if row.length == longest:
                    places = (np.arange(len(row.by_position)) + 0.5) * longest / len(row.by_position)
                    below.plot(places, row.by_position, **style)
        above.axhline(trained.perplexity * 1.1, color="#999999", lw=1, ls=":", label="trained + 10 %")
        above.set_title(f"after {adapted} steps at the longer length" if adapted else "without adaptation", fontsize=11)
        above.set_xscale("log", base=2)
        above.set_yscale("log")
        above.xaxis.set_major_locator(FixedLocator(sorted({row.length for row in rows})))
        above.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        above.yaxis.set_major_locator(LogLocator(subs=(1, 1.25, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8)))
        above.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        above.yaxis.set_minor_formatter(NullFormatter())
        above.set_xlabel("tokens a window")
        below.axvline(shortest, color="#999999", lw=1, ls=":")
        below.set_xlabel(f"position in a window of {longest:,}")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    panels[0, 0].set_ylabel("perplexity")
    panels[1, 0].set_ylabel("loss (nats per byte)")
    panels[0, 0].legend(frameon=False, fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(Path(path), image.getvalue())
