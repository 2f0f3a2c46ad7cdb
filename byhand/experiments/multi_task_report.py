"""What came of the multi-task experiment, for people: tables, files, and a figure (which needs matplotlib, the `plot` extra)."""

import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byhand.experiments.multi_task import METHODS, MultiTask, Outcome, Result
from byhand.run_directory import write_whole

_COLORS = {"mixlora": "#1b6ca8", "trainable": "#f18f01", "active": "#8a8a8a", "unbalanced": "#c0392b"}
_RIVALS = ("trainable", "active")


def by_method(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each method, in order."""
    return {method: own for method in METHODS if (own := [result for result in results if result.method == method])}


def table(outcome: Outcome) -> str:
    """Markdown: the exact answers of each method, task by task, in per cent."""
    tasks = list(outcome.results[0].accuracy)
    lines = [f"| | trainable | lr | {' | '.join(tasks)} | mean |", f"|---|---:|---:|{'---:|' * (len(tasks) + 1)}"]
    for method, own in by_method(outcome.results).items():
        cells = [_percent([result.accuracy[task] for result in own]) for task in tasks]
        lines.append(f"| {METHODS[method]} | {own[0].parameters:,} | {own[0].lr:g} | {' | '.join(cells)} "
                     f"| **{_percent([result.mean for result in own], digits=1)}** |")
    return "\n".join(lines) + "\n"


def comparison(outcome: Outcome) -> str:
    """What MixLoRA gains over each single LoRA: of the mean accuracy, and of the share of wrong answers."""
    own = by_method(outcome.results)
    mean = {method: statistics.fmean(result.mean for result in own[method]) for method in own}
    lines = []
    for rival in _RIVALS:
        gains = [one.mean - other.mean for one, other in zip(own["mixlora"], own[rival], strict=True)]
        lines.append(f"- against {METHODS[rival]}: mean accuracy {_change(mean['mixlora'], mean[rival])}, wrong answers "
                     f"{_change(1 - mean['mixlora'], 1 - mean[rival])}; seed by seed "
                     f"{', '.join(f'{100 * gain:+.1f}' for gain in gains)} points")
    return "\n".join(lines) + "\n"


def utilisation(outcome: Outcome) -> str:
    """Markdown: the largest share of an expert over an even one, by layer, with the balance loss and without it."""
    routed = {method: own for method, own in by_method(outcome.results).items() if own[0].shares}
    layers = range(len(next(iter(routed.values()))[0].shares))
    lines = ["| | " + " | ".join(f"block {layer}" for layer in layers) + " | least used |", f"|---|{'---:|' * (len(layers) + 1)}"]
    for method, own in routed.items():
        cells = [" / ".join(f"{max(result.shares[layer]) * len(result.shares[layer]):.2f}" for result in own) for layer in layers]
        least = min(min(shares) * len(shares) for result in own for shares in result.shares)
        lines.append(f"| {METHODS[method]} | {' | '.join(cells)} | {least:.2f} |")
    return "\n".join(lines) + "\n"


def trials(outcome: Outcome) -> str:
    """Markdown: the mean accuracy on validation examples by learning rate, from which each method's was chosen."""
    lrs = sorted({trial.lr for trial in outcome.trials})
    lines = ["| | " + " | ".join(f"lr {lr:g}" for lr in lrs) + " |", f"|---|{'---:|' * len(lrs)}"]
    for method, own in by_method(outcome.trials).items():
        found = {trial.lr: trial.mean for trial in own}
        cells = [f"{100 * found[lr]:.1f}" for lr in lrs]
        lines.append(f"| {METHODS[method]} | " + " | ".join(f"**{cell}**" if lr == outcome.lrs[method] else cell
                                                            for lr, cell in zip(lrs, cells, strict=True)) + " |")
    return "\n".join(lines) + "\n"


def text(options: MultiTask, outcome: Outcome) -> str:
    """All tables, and what they show."""
    ranks = {method: options.feed_forward_rank(method) for method in _RIVALS}
    attention = f"and of rank {options.attention_rank} on attention in all methods" if options.attention_rank else "attention is frozen"
    seeds = len({result.seed for result in outcome.results})
    return (
        f"A base of {options.n_layers} blocks of width {options.d_model} (feed-forward {options.d_hidden}), trained for "
        f"{options.base_steps:,} updates, then frozen. Adapters on its feed-forward layers, {attention}: {options.experts} experts of rank "
        f"{options.rank}, {options.top_k} for each token, or one LoRA of rank {ranks['trainable']} (equal trainable) or "
        f"{ranks['active']} (equal active); {options.steps:,} updates of {options.batch} examples. Exact answers in per cent of "
        f"{options.judged:,} test examples, mean over {seeds} {'seeds' if seeds > 1 else 'seed'}"
        f"{', ± the standard deviation over them' if seeds > 1 else ''}.\n\n{table(outcome)}\nMixLoRA\n\n{comparison(outcome)}\n"
        f"The most used expert's share of the tokens of the test, as a multiple of an even share, for each seed; and the smallest such "
        f"multiple of all:\n\n{utilisation(outcome)}\n"
        f"Learning rates, by the mean accuracy on validation examples with seed {options.trial_seed}, which is none of the others:\n\n"
        f"{trials(outcome)}"
    )


def write(options: MultiTask, outcome: Outcome, directory: str | Path) -> list[Path]:
    """Write table.md, rows.csv, rows.json and, with matplotlib installed, multi_task.png; the paths of what was written."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    runs = [*outcome.trials, *outcome.results]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["method", "seed", "lr", "part", "parameters", "mean", *outcome.results[0].accuracy, "largest share", "seconds"])
    for i, run in enumerate(runs):
        part = "validation" if i < len(outcome.trials) else "test"
        writer.writerow([run.method, run.seed, run.lr, part, run.parameters, run.mean, *run.accuracy.values(), _known(run.largest),
                         round(run.seconds, 1)])
    kept = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("jobs", "device")}
    content: dict[str, Any] = {
        "options": kept, "lrs": outcome.lrs,
        **{name: [run._asdict() | {"losses": _thin(run.losses)} for run in some]
           for name, some in (("trials", outcome.trials), ("results", outcome.results))},
    }
    files = {"table.md": text(options, outcome), "rows.csv": lines.getvalue(), "rows.json": json.dumps(content, indent=1) + "\n"}
    for name, written in files.items():
        write_whole(directory / name, written.encode())
    paths = [directory / name for name in files]
    try:
        draw(outcome, directory / "multi_task.png")
    except ValueError:
        return paths
    return [*paths, directory / "multi_task.png"]


def draw(outcome: Outcome, path: Path) -> None:
    """A PNG: the exact answers by task, each seed a dot, their mean a bar; below, the use of the experts with and without the balance loss.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("draw needs matplotlib: pip install 'byhand[plot]'") from error

    methods = by_method(outcome.results)
    tasks = list(outcome.results[0].accuracy)
    figure = Figure(figsize=(10, 7), dpi=150, layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.6, 1])[:, 0]
    axis = above.subplots()
    compared = [method for method in methods if method != "unbalanced"]
    for place, method in enumerate(compared):
        at = 0.26 * (place - (len(compared) - 1) / 2)
        for column, task in enumerate(["mean", *tasks]):
            values = [100 * (result.mean if task == "mean" else result.accuracy[task]) for result in methods[method]]
            x = column + at + (column > 0) * 0.4
            axis.bar(x, statistics.fmean(values), 0.24, color=_COLORS[method], alpha=0.35, label=METHODS[method] if column == 0 else None)
            axis.plot([x + 0.05 * (i - (len(values) - 1) / 2) for i in range(len(values))], values, "o", ms=3.5, color=_COLORS[method])
    axis.set_xticks([0, *(column + 1.4 for column in range(len(tasks)))], ["mean", *tasks])
    axis.axvline(0.7, color="#cccccc", lw=1)
    axis.set_ylim(0, 100)
    axis.set_ylabel("exact answers (%)")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    _plain(axis)

    routed = [method for method in methods if methods[method][0].shares]
    layers = len(methods[routed[0]][0].shares)
    panels = below.subplots(1, layers, sharey=True, squeeze=False)[0]
    for layer, panel in enumerate(panels):
        for method in routed:
            for i, result in enumerate(methods[method]):
                share = sorted((value * len(result.shares[layer]) for value in result.shares[layer]), reverse=True)
                panel.plot(range(1, len(share) + 1), share, "o-", ms=3, lw=1, alpha=0.8, color=_COLORS[method],
                           label=METHODS[method] if (i, layer) == (0, 0) else None)
        panel.axhline(2, color="#999999", lw=1, ls=":")
        panel.set_title(f"block {layer}", fontsize=10)
        panel.set_xlabel("expert, the most used first")
        _plain(panel)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("share of the tokens\n(1: an even one)")
    panels[0].legend(frameon=False, fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(Path(path), image.getvalue())


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)


def _percent(values: Sequence[float], digits: int = 0) -> str:
    spread = f" ± {100 * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.{digits}f}{spread}"


def _change(new: float, old: float) -> str:
    return f"{100 * old:.1f} → {100 * new:.1f} % ({new / old - 1:+.1%})" if old else f"0 → {100 * new:.1f} %"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _thin(losses: Sequence[float]) -> list[float]:
    """The means of (about) every hundredth part of a training."""
    size = max(len(losses) // 100, 1)
    return [round(statistics.fmean(losses[i : i + size]), 4) for i in range(0, len(losses), size)]
