"""What routers do as a picture, PNG or SVG: the experts of every token of a text, and their use over a run. Needs matplotlib."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from byhand.attention_figure import save_figure
from byhand.expert_maps import ExpertMap
from byhand.routing_metrics import LayerRouting

_UNCHOSEN, _LOW, _MIDDLE, _HIGH = "#f6f3ec", "#c9def0", "#2b7bba", "#08204a"      # not chosen; then weights 0 … 1
_DROPPED, _BLUE, _GREY = "#d55e00", "#1b6ca8", "#444444"
_LESS, _EVEN, _MORE = "#7b3294", "#f7f7f7", "#b35806"                             # purple to orange: told apart by all eyes
_LINE = 64                                       # tokens a line
_COLUMNS = 200                                   # steps that are drawn apart
_LEFT, _RIGHT, _WIDTH, _TITLE = 0.75, 0.95, 11.2, 0.42                            # inches: margins, the page, its title
_TALLEST = 40_000                                # dots
_Steps = Mapping[int, Sequence[LayerRouting]]


def draw_experts(path: Path, *, maps: Sequence[ExpertMap], tokens: Sequence[str], steps: _Steps, title: str) -> None:
    """Draw into a .png or .svg the maps of a text's tokens, where there are any, and below them the use of experts by step, likewise.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("draw needs matplotlib: pip install 'byhand[plot]'") from error

    tall = _height_of_maps(maps, tokens)
    height = _TITLE + tall + _height_of_steps(steps)
    page = _Page(Figure(figsize=(_WIDTH, height), dpi=min(150, _TALLEST / height)), _WIDTH, height)
    page.figure.text(0.5, 1 - 0.2 / height, title, fontsize=10, ha="center", va="center")
    if maps:
        _draw_maps(page, maps, tokens)
    if steps:
        _draw_steps(page, steps, _TITLE + tall)
    save_figure(page.figure, path)


class _Page(NamedTuple):
    """A figure on which things have their places in inches from the upper left corner."""

    figure: Any
    width: float
    height: float

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        return self.figure.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height))

    def write(self, x: float, y: float, text: str) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=8, color=_GREY, ha="left", va="center")

    def bar(self, image: Any, x: float, y: float, height: float, ticks: Mapping[float, str], label: str = "") -> None:
        bar = self.figure.colorbar(image, cax=self.axes(x, y, 0.12, height))
        bar.set_ticks(list(ticks), labels=list(ticks.values()))
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
        bar.set_label(label, fontsize=8, color=_GREY)


def _lines(tokens: Sequence[str]) -> list[slice]:
    return [slice(i, i + _LINE) for i in range(0, len(tokens), _LINE)]


def _map_height(one: ExpertMap) -> float:
    return max(0.4, min(0.13, 3.5 / len(one.weights)) * len(one.weights))


def _word_height(tokens: Sequence[str]) -> float:
    longest = max(map(len, tokens), default=0)
    return 0.1 + (0.075 * longest if longest > 2 else 0.1)


def _height_of_maps(maps: Sequence[ExpertMap], tokens: Sequence[str]) -> float:
    line = sum(_map_height(one) + 0.08 for one in maps) + _word_height(tokens) * (2 if len(maps) > 1 else 1) + 0.15
    return len(_lines(tokens)) * line + 0.35 if maps else 0.0


def _draw_maps(page: _Page, maps: Sequence[ExpertMap], tokens: Sequence[str]) -> None:
    """Experts by tokens, a row for every layer; a long text goes on in further lines below, each with all layers."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("weights", [_LOW, _MIDDLE, _HIGH]).with_extremes(bad=_UNCHOSEN)
    words, y = _word_height(tokens), _TITLE
    side = (page.width - _LEFT - _RIGHT) / max(min(_LINE, len(tokens)), 24)           # of a token
    image: Any = None
    for line in _lines(tokens):
        y += words
        for i, one in enumerate(maps):
            weights, chosen, kept = (array[:, line] for array in (one.weights, one.chosen, one.kept))
            experts, n = weights.shape
            axis = page.axes(_LEFT, y, side * n, _map_height(one))
            image = axis.imshow(np.ma.masked_array(weights, ~kept), cmap=colors, norm=PowerNorm(0.5, 0, 1), interpolation="none",
                                aspect="auto")
            rows, columns = np.nonzero(chosen & ~kept)
            axis.plot(columns, rows, "x", color=_DROPPED, ms=4 if experts <= 16 else 2.5, mew=1, clip_on=False)
            axis.set_xticks(np.arange(0.5, n - 1), minor=True)
            axis.set_yticks(np.arange(0.5, experts - 1), minor=True)
            axis.grid(which="minor", color="white", lw=0.8 if experts <= 16 else 0.3)
            _name_experts(axis, one.layer, experts)
            axis.set_xticks(range(n), tokens[line], fontsize=7.5, family="monospace", rotation=90 if max(map(len, tokens)) > 2 else 0)
            axis.tick_params(which="both", length=0, pad=2, labeltop=i == 0, labelbottom=0 < i == len(maps) - 1)
            axis.spines[:].set_visible(False)
            if y < _TITLE + words + 0.01:                                             # the first of all
                ticks = {0: "0", 0.05: "0.05", 0.2: "0.2", 0.5: "0.5", 1: "1"}
                page.bar(image, _LEFT + side * n + 0.12, y, min(max(_map_height(one), 0.8), 2), ticks, "router's weight")
            y += _map_height(one) + 0.08
        y += (words if len(maps) > 1 else 0) + 0.15
    dropped = any((one.chosen & ~one.kept).any() for one in maps)
    note = "; ×: chosen, but full" if dropped else ""
    page.write(_LEFT, y, f"the experts (rows) that each token of the text goes to{note}")


def _name_experts(axis: Any, layer: str, experts: int) -> None:
    every = 1 if experts <= 8 else 2 if experts <= 16 else 8
    axis.set_yticks(range(0, experts, every), [str(e) for e in range(0, experts, every)], fontsize=6)
    axis.set_ylabel(re.sub(r"^(?:base\.)?blocks\.(\d+)\.mlp$", r"block \1", layer), fontsize=8, color=_GREY, labelpad=6)


def _step_height(layer: LayerRouting) -> float:
    return max(1.25, min(0.05 * len(layer.utilisation), 2.6))


def _height_of_steps(steps: _Steps) -> float:
    return sum(_step_height(layer) + 0.2 for layer in next(iter(steps.values()))) + 0.85 if steps else 0.0


def _draw_steps(page: _Page, steps: _Steps, y: float) -> None:
    """A row for every layer: the share of each expert by step, the largest of them, and entropy and dropped share."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    colors = LinearSegmentedColormap.from_list("use", [_LESS, _EVEN, _MORE])
    edges, layers = _binned(steps)
    middles = (edges[:-1] + edges[1:]) / 2
    columns = {"each expert's share of the computed choices": (_LEFT, 4.7), "busiest share ÷ even share": (6.55, 1.95),
               "entropy of use, dropped share": (8.95, 1.95)}
    y += 0.35
    for i, ((name, share, entropy, dropped), shown) in enumerate(zip(layers, next(iter(steps.values())), strict=True)):
        height, experts = _step_height(shown), share.shape[1]
        left, middle, right = (page.axes(x, y, width, height) for x, width in columns.values())
        with np.errstate(divide="ignore"):
            mesh = left.pcolormesh(edges, np.arange(experts + 1) - 0.5, np.clip(np.log2(share.T * experts), -2, 2), cmap=colors,
                                   norm=Normalize(-2, 2), rasterized=True)
        left.invert_yaxis()
        _name_experts(left, name, experts)
        line: dict[str, Any] = dict(lw=1.3, marker="o" if len(middles) <= 20 else None, ms=3)
        middle.plot(middles, share.max(1) * experts, color=_BLUE, **line)
        middle.set_ylim(0.5, max(2.1, 1.08 * float(share.max()) * experts))
        right.plot(middles, entropy, color=_BLUE, label="entropy", **line)
        right.plot(middles, dropped, color=_DROPPED, ls=(0, (4, 2)), label="dropped share", **line)
        right.set_ylim(-0.04, 1.08)
        for axis in (middle, right):
            axis.axhline(1, color=_GREY, lw=0.9, ls=":")
        for axis, heading in zip((left, middle, right), columns, strict=True):
            axis.tick_params(labelsize=7, labelbottom=i == len(layers) - 1)
            axis.set_xlim(edges[0], edges[-1])
            axis.spines[["top", "right"]].set_visible(False)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
            if i == 0:
                axis.set_title(heading, fontsize=8.5)
            if i == len(layers) - 1:
                axis.set_xlabel("step", fontsize=8, color=_GREY)
        left.tick_params(axis="y", labelsize=6, length=0)
        if i == 0:
            page.bar(mesh, _LEFT + 4.78, y, height, {-2: "≤ ¼", -1: "½", 0: "even", 1: "2 ×", 2: "≥ 4 ×"})
            middle.annotate("even use", (1, 1), xycoords=("axes fraction", "data"), textcoords="offset points", xytext=(-2, -8),
                            fontsize=7, color=_GREY, ha="right")
            right.legend(fontsize=7, framealpha=0.8, edgecolor="none", loc="best")
        y += height + 0.2


def _binned(steps: _Steps) -> tuple[Any, list[tuple[str, Any, Any, Any]]]:
    """The edges of at most 200 groups of steps, (G + 1,), and for each layer its name, shares (G, E), entropy (G,) and dropped share (G,),
    the means over each group."""
    numbers, updates = np.array(list(steps)), list(steps.values())
    groups = np.array_split(np.arange(len(numbers)), math.ceil(len(numbers) / math.ceil(len(numbers) / _COLUMNS)))
    starts = np.array([group[0] for group in groups])
    edges = np.append(numbers[starts], numbers[-1] + 1) - 0.5

    def means(values: Any) -> Any:
        sizes = np.diff(np.append(starts, len(values))).reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(values, starts, 0) / sizes

    layers = []
    for same in zip(*updates, strict=True):
        columns = (np.array([getattr(one, name) for one in same], float) for name in ("utilisation", "entropy", "dropped"))
        layers.append((same[0].layer, *map(means, columns)))
    return edges, layers
