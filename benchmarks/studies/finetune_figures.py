"""Drawings of the figures of `python -m benchmarks finetune`. They need matplotlib, the `plot` extra."""

import io
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from byhand.run_directory import write_whole

BLUE, ORANGE, GREY, RED = "#1b6ca8", "#f18f01", "#555555", "#c0392b"

Figures = Mapping[str, Any]


def draw(part: str, figures: Figures, path: Path) -> Path | None:
    """A PNG, for the parts that have one.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    if part not in _DRAWINGS:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("benchmarks finetune needs matplotlib: pip install 'byhand[plot]'") from error
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _DRAWINGS[part](figures, *axes)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(path, image.getvalue())
    return path


def _draw_qlora(figures: Figures, curves: Any, ends: Any) -> None:
    styles: tuple[dict[str, Any], ...] = dict(lw=3.2, alpha=0.55), dict(lw=1.6, ls=(0, (4, 2)))
    for (way, runs), color, style in zip(figures["losses"].items(), (BLUE, ORANGE), styles, strict=True):
        by_step = list(zip(*runs, strict=True))
        label = f"{way}, training, mean of {len(runs)} seeds"
        curves.plot(range(1, len(by_step) + 1), list(map(statistics.fmean, by_step)), color=color, label=label, **style)
        looks = {int(step): loss for step, loss in figures["curves"][way].items() if step != "0"}
        curves.plot(list(looks), list(looks.values()), "o" if color == BLUE else "x", ms=5, color=color, label=f"{way}, text kept apart")
    curves.set_xscale("log")
    curves.xaxis.set_major_formatter("{x:g}")
    curves.set(xlabel="step", ylabel="loss (nats per byte)")
    curves.legend(frameon=False, fontsize=8)
    lora, other = figures["runs"].values()
    steps = [step for step in lora[0] if step != "0"]
    for seed, (one, two) in enumerate(zip(lora, other, strict=True)):
        ends.plot([int(step) for step in steps], [100 * (two[step] / one[step] - 1) for step in steps], color=GREY, lw=1.2,
                  alpha=0.4 + 0.2 * seed, label=f"seed {seed}")
    ends.axhline(0, color=GREY, lw=0.8)
    ends.axhline(5, color=RED, lw=1, ls=":")
    ends.annotate("wanted at the end: within 5 %", (1, 5), xycoords=("axes fraction", "data"), textcoords="offset points", xytext=(0, 4),
                  fontsize=8, color=RED, ha="right")
    ends.xaxis.get_major_locator().set_params(integer=True)
    ends.set(xlabel="step", ylabel="QLoRA's loss above LoRA's (%)")
    ends.legend(frameon=False, fontsize=8)


def _draw_ranks(figures: Figures, shares: Any, curves: Any) -> None:
    rows = [row for row in figures["rows"] if row["way"] != "full"]
    x = [100 * row["share_of_parameters"] for row in rows]
    each = [[100 * share for share in row["share_of_improvement"]] for row in rows]
    means = list(map(statistics.fmean, each))
    shares.plot(x, means, "o-", color=BLUE, lw=1.8, ms=5)
    shares.fill_between(x, list(map(min, each)), list(map(max, each)), color=BLUE, alpha=0.15, lw=0)
    for place, mean, row in zip(x, means, rows, strict=True):
        shares.annotate(row["way"], (place, mean), textcoords="offset points", xytext=(6, 5), fontsize=8, color=GREY)
    shares.axhline(100, color=GREY, lw=0.8)
    shares.axhline(95, color=RED, lw=1, ls=":")
    shares.axvline(10, color=RED, lw=1, ls=":")
    shares.set_xscale("log")
    shares.margins(x=0.1)
    ticks = [1, 2, 5, 10, 20, 40]
    shares.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    shares.minorticks_off()
    shares.set(xlabel="share of the parameters that train", ylabel="share of full fine-tuning's improvement (%)")
    shares.set_title("aimed at: above 95 % and left of 10 %", loc="left", fontsize=8, color=RED)
    for i, row in enumerate(figures["rows"]):
        full = row["way"] == "full"
        curves.plot([int(step) for step in row["curve"]], list(row["curve"].values()), lw=2.2 if full else 1.2, label=row["way"],
                    color=ORANGE if full else BLUE, alpha=1.0 if full else 0.2 + 0.13 * i)
    late = [loss for row in figures["rows"] for loss in list(row["curve"].values())[2:]]
    curves.set_ylim(min(late) - 0.02, max(late) + 0.02)        # the fall at the beginning, alike in all, would hide the rest
    curves.set(xlabel="step", ylabel="loss on text kept apart (nats per byte)")
    curves.legend(frameon=False, fontsize=8)


def _draw_cost(figures: Figures, memory: Any, times: Any) -> None:
    rows = figures["rows"]
    places = range(len(rows))
    left = [0.0] * len(rows)
    for kind, label, color in (("trained_bytes", "what trains", BLUE), ("gradient_bytes", "gradients", ORANGE),
                               ("state_bytes", "AdamW's states", "#2e8b57"), ("frozen_bytes", "frozen", "#bbbbbb")):
        values = [row[kind] / 2**20 for row in rows]
        memory.barh(places, values, left=left, color=color, height=0.65, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    memory.set(xlabel="MiB from step to step, without activations")
    memory.legend(frameon=False, fontsize=8)
    times.barh(places, [row["seconds"] * 1e3 for row in rows], color=BLUE, height=0.65)
    times.set(xlabel="ms a step (processor time)")
    for axis in (memory, times):
        axis.margins(x=0.03)
        axis.set_yticks(list(places), [row["way"] for row in rows])
        axis.invert_yaxis()
    times.set_yticklabels([])


_DRAWINGS: dict[str, Callable[..., None]] = {"qlora": _draw_qlora, "ranks": _draw_ranks, "cost": _draw_cost}
