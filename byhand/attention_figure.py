"""Attention weights as a picture, PNG or SVG: one head with its tokens, or many beside each other. Needs matplotlib, the `plot` extra."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.run_directory import write_whole

_UNSEEN, _LOW, _MIDDLE, _HIGH = "#f3efe7", "#f7fbff", "#2b7bba", "#08204a"  # what is hidden or exactly 0; then 0 … 1
_FEW = 16  # tokens that can be named beside each of many heads
_TICKS = (0, 0.01, 0.05, 0.2, 0.5, 1)


class Panel(NamedTuple):
    """One head: its title, weights (T, S), and how the T queries and the S keys are written."""

    title: str
    weights: NDArray
    queries: Sequence[str]
    keys: Sequence[str]


def draw_panels(path: Path, panels: Sequence[Panel], *, columns: int, title: str) -> None:
    """Draw heads into a .png or .svg, row by row; a weight is a colour, on a scale of square roots so that small ones can be told from 0.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("draw needs matplotlib: pip install 'byhand[plot]', or draw an .html, which needs nothing") from error

    colors = LinearSegmentedColormap.from_list("weights", [_LOW, _MIDDLE, _HIGH]).with_extremes(bad=_UNSEEN)
    norm = PowerNorm(0.5, 0, 1)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    named = len(panels) == 1
    longest = max(max(panel.weights.shape) for panel in panels)
    title_width = 0.065 * max(len(panel.title) for panel in panels)
    side = min(max(0.17 * longest, 4.2), 13) if named else min(max(0.03 * longest, 1.7, title_width), 3)  # inches a panel
    figure = Figure(figsize=(side * columns + 1.3, side * rows * (1 if named else 1.07) + 0.9), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    image: Any = None
    for axis, panel in zip(axes.flat, panels, strict=False):
        image = axis.imshow(np.ma.masked_equal(panel.weights, 0), cmap=colors, norm=norm, interpolation="none", aspect="equal")
        if named or longest <= _FEW:
            _name_tokens(axis, panel, side)
        else:
            axis.set_xticks([])
            axis.set_yticks([])
        if named:
            axis.set_xlabel("key: the token attended to", fontsize=8, color="#444444", labelpad=6)
            axis.set_ylabel("query: the token that attends", fontsize=8, color="#444444", labelpad=6)
        else:
            axis.set_title(panel.title, fontsize=8, pad=3)
        axis.spines[:].set_color("#bbbbbb")
        axis.spines[:].set_linewidth(0.5)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.015, aspect=36, panchor=False, shrink=0.75 if rows > 1 or named else 1)
    bar.set_ticks(_TICKS, labels=[f"{tick:g}" for tick in _TICKS])
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.5)
    bar.set_label("attention weight", fontsize=8)
    figure.suptitle(title + (f", {panels[0].title}" if named else ""), fontsize=10)
    if not named:
        figure.supxlabel("key: the token attended to →", fontsize=8, color="#444444")
        figure.supylabel("← query: the token that attends", fontsize=8, color="#444444")
    save_figure(figure, path)


def _name_tokens(axis: Any, panel: Panel, side: float) -> None:
    """The tokens along both edges, as large as there is room for; too many are numbered instead."""
    for set_ticks, tokens, rotation in ((axis.set_xticks, panel.keys, 90), (axis.set_yticks, panel.queries, 0)):
        points = 72 * side / max(len(tokens), 1)
        if points >= 5:
            turned = rotation if rotation and max(map(len, tokens), default=0) > 2 else 0
            set_ticks(range(len(tokens)), tokens, fontsize=min(points * 0.8, 9), family="monospace", rotation=turned)
        else:
            every = 10 ** math.ceil(math.log10(max(len(tokens) / 20, 1)))
            set_ticks(range(0, len(tokens), every))
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=2)
    axis.xaxis.set_label_position("top")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole, as what its name ends in; the same figure makes the same file."""
    from matplotlib import rc_context

    kind, image = path.suffix[1:].lower(), io.BytesIO()
    # Text stays text, and no random names are drawn.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "byhand"}):
        figure.savefig(image, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, image.getvalue())
