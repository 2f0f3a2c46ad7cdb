"""What came of an architecture experiment, for people: a table, files, and a figure (which needs matplotlib, the `plot` extra)."""

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byhand.experiments.architecture import SUITES, Architecture, Result, Row, fixed, summary
from byhand.run_directory import write_whole

HEADER = ("variant", "validation loss", "perplexity", "parameters", "tokens/s")
_COLORS = ("#1b6ca8", "#f18f01", "#2e8b57", "#c0392b", "#8e44ad", "#555555")


def cells(row: Row, best: float) -> tuple[str, ...]:
    """A row of the table as text; how far behind the best one it is stands beside its loss."""
    if row.diverged:
        which = "diverged" if row.diverged == row.seeds else f"diverged with {row.diverged} of {row.seeds} seeds"
        return row.variant, which, "–", f"{row.parameters:,}", f"{row.tokens_per_second:,.0f}"
    spread = "" if math.isnan(row.spread) else f" ± {row.spread:.3f}"
    behind = f" ({row.loss - best:+.3f})" if row.loss > best else ""
    return (row.variant, f"{row.loss:.3f}{spread}{behind}", f"{row.perplexity:.2f}", f"{row.parameters:,}",
            f"{row.tokens_per_second:,.0f}")


def best_loss(rows: Sequence[Row]) -> float:
    """The lowest mean loss of a variant that never diverged; NaN if there is none."""
    return min((row.loss for row in rows if not row.diverged), default=math.nan)


def table(results: list[Result]) -> str:
    """Markdown: the variants, the best first."""
    rows = sorted(summary(results), key=lambda row: math.inf if row.diverged else row.loss)
    lines = [f"| {' | '.join(HEADER)} |", "|---|---|---:|---:|---:|"]
    lines += [f"| {' | '.join(cells(row, best_loss(rows)))} |" for row in rows]
    return "\n".join(lines) + "\n"


def description(suite: str, options: Architecture, results: list[Result]) -> str:
    """One sentence: what was trained how, and what the numbers mean."""
    seeds = len({result.seed for result in results})
    tokens = options.steps * options.batch * options.length
    return (
        f"Each variant: {options.n_layers} blocks of width {options.d_model} with {options.n_heads} heads, {options.steps} updates of "
        f"{options.batch} × {options.length} bytes ({tokens / 1e6:.2g} million in all), AdamW with a peak learning rate of {options.lr:g}; "
        f"loss in nats a byte on text kept apart, mean{' ± standard deviation' if seeds > 1 else ''} over {seeds} "
        f"{'seeds' if seeds > 1 else 'seed'}, in brackets the distance from the best."
    )


def write(suite: str, options: Architecture, results: list[Result], directory: str | Path) -> list[Path]:
    """Write table.md, rows.csv, rows.json and, with matplotlib installed, losses.png; the paths of what was written."""
    directory = Path(directory)
    rows = summary(results)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    content: dict[str, Any] = {"suite": suite, "options": fixed(options), "rows": [_known(row._asdict()) for row in rows]}
    files = {
        "table.md": f"{description(suite, options, results)}\n\n{table(results)}",
        "rows.csv": lines.getvalue(),
        "rows.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in files.items():
        write_whole(directory / name, text.encode())
    paths = [directory / name for name in files]
    try:
        draw(suite, results, directory / "losses.png")
    except ValueError:
        return paths
    return [*paths, directory / "losses.png"]


def draw(suite: str, results: list[Result], path: Path) -> None:
    """A PNG: on the left the validation loss by step, the mean over the seeds and the range between them; on the right where each ended.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ValueError("draw needs matplotlib: pip install 'byhand[plot]'") from error

    rows = sorted(summary(results), key=lambda row: math.inf if row.diverged else row.loss)
    color = dict(zip(dict.fromkeys(result.variant for result in results), _COLORS, strict=False))
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    curves, ends = figure.subplots(1, 2, width_ratios=[1.7, 1])
    late: list[float] = []
    for row in rows:
        own = [result for result in results if result.variant == row.variant]
        steps = sorted(set.intersection(*(set(result.validation) for result in own)))
        by_step = [[result.validation[step] for result in own] for step in steps]
        steps, by_step = _finite_only(steps, by_step)
        means = [statistics.fmean(losses) for losses in by_step]
        curves.plot(steps, means, color=color[row.variant], lw=1.8, label=row.variant, marker="x" if row.diverged else None, markevery=[-1])
        curves.fill_between(steps, [min(losses) for losses in by_step], [max(losses) for losses in by_step], color=color[row.variant],
                            alpha=0.15, lw=0)
        late += means[len(means) // 5:]
    if late:
        low, high = min(late), max(late)
        curves.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))   # the steep beginning, alike in all, would hide the rest
    curves.set_xlabel("step")
    curves.set_ylabel("validation loss (nats per byte)")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.legend(frameon=False)

    for place, row in enumerate(rows):
        losses = [result.loss for result in results if result.variant == row.variant and result.diverged is None]
        ends.plot(losses, [place] * len(losses), "o", ms=5, alpha=0.45, mew=0, color=color[row.variant])
        if row.diverged:
            ends.text(0.5, place, "diverged", transform=ends.get_yaxis_transform(), ha="center", va="center", color=color[row.variant])
        else:
            ends.plot([row.loss], [place], "|", ms=16, mew=2.2, color=color[row.variant])
            ends.annotate(f"{row.loss:.3f}", (row.loss, place), textcoords="offset points", xytext=(0, 11), ha="center", fontsize=8,
                          color="#333333")
    ends.set_yticks(range(len(rows)), [row.variant for row in rows])
    ends.set_ylim(len(rows) - 0.5, -0.7)
    ends.margins(x=0.12)
    ends.set_xlabel("at the end: every seed, and their mean")
    for axis in (curves, ends):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    ends.grid(axis="y", visible=False)
    figure.suptitle(SUITES[suite].question, fontsize=12)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(Path(path), image.getvalue())


def _finite_only(steps: list[int], by_step: list[list[float]]) -> tuple[list[int], list[list[float]]]:
    kept = [(step, losses) for step, losses in zip(steps, by_step, strict=True) if all(map(math.isfinite, losses))]
    return [step for step, _ in kept], [losses for _, losses in kept]


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """NaN, for which JSON has no word, as None."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
