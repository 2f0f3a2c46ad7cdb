"""The figure of a run: its losses and, where two implementations ran, their difference. Needs matplotlib, the `plot` extra."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from byhand.run_directory import write_whole

_COLORS = ("#1b6ca8", "#f18f01")


def draw_losses(path: Path, losses: Mapping[str, Sequence[float]], *, validation: Mapping[str, Mapping[int, float]], title: str,
                bound: float | None = None) -> None:
    """Draw the loss of each implementation by step, with its validation losses as dots, into a PNG.

    Two implementations lie on each other: the second is dashed, and a second panel shows |difference| on a logarithmic scale, with
    `bound`, what it may be at most, as a line.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ValueError("draw_losses needs matplotlib: pip install 'byhand[plot]'") from error

    two = len(losses) == 2
    figure = Figure(figsize=(8, 6 if two else 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(2 if two else 1, 1, sharex=True, squeeze=False, height_ratios=[2.2, 1] if two else [1])[:, 0]
    for i, (name, values) in enumerate(losses.items()):
        style = dict(lw=3.2, alpha=0.55) if two and i == 0 else dict(lw=1.6, ls=(0, (4, 2)) if two else "-")
        axes[0].plot(range(1, len(values) + 1), values, color=_COLORS[i], label=name, **style)
        seen = validation.get(name, {})
        axes[0].plot(list(seen), list(seen.values()), "o", ms=8 - 4 * i, color=_COLORS[i], markeredgecolor="white",
                     label=f"{name}, validation")
    axes[0].set_ylabel("loss (nats per byte)")
    axes[0].legend(frameon=False)
    axes[0].set_title(title, fontsize=11)
    if two:
        one, other = losses.values()
        gaps = [abs(a - b) for a, b in zip(one, other, strict=False)]
        steps = [step for step, gap in enumerate(gaps, 1) if gap > 0]  # a difference of exactly 0 has no place on a logarithmic axis
        shown = [gap for gap in gaps if gap > 0] or [1e-16]
        axes[1].plot(steps, [gap for gap in gaps if gap > 0], "o", color="#555555", ms=3)
        axes[1].set_yscale("log")
        axes[1].set_ylim(10 ** math.floor(math.log10(min(shown))), 10 ** (1 + math.floor(math.log10(max(*shown, bound or 0.0)))))
        axes[1].set_ylabel("|difference|")
        if len(steps) < len(gaps):
            hidden = f"not shown: {len(gaps) - len(steps)} steps that differ by exactly 0"
            axes[1].set_title(hidden, loc="right", fontsize=8, color="#555555")
        if bound is not None:
            axes[1].axhline(bound, color="#c0392b", lw=1, ls=":")
            axes[1].annotate(f"promised: {bound:g}", (1, bound), textcoords="offset points", xytext=(2, -10), fontsize=8, color="#c0392b")
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(path, image.getvalue())
