"""The figures of `python -m benchmarks finetune` for people: text with tables for each part, and drawings."""

import io
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from byhand.experiments.documentation import check, insert
from byhand.finetuning.report import amount
from byhand.run_directory import write_whole

BLUE, ORANGE, GREY, RED = "#1b6ca8", "#f18f01", "#555555", "#c0392b"

Figures = Mapping[str, Any]


def publish(figures: Mapping[str, Figures], out: Console, document: Path | None) -> None:
    """Print every part and, where there is a document, put it there with its drawing.

    Raises
    ------
    ValueError   if the document lacks the markers of a part, or matplotlib is not installed
    """
    if document is not None:
        for part in figures:
            check(document, f"finetune-{part}")
    for part, found in figures.items():
        out.print(f"\n{text(part, found)}", markup=False, highlight=False, soft_wrap=True)
        if document is not None:
            with tempfile.TemporaryDirectory() as folder:
                insert(document, f"finetune-{part}", text(part, found), draw(part, found, Path(folder, "figure.png")))


def text(part: str, figures: Figures) -> str:
    """Markdown: what was measured where, the table, and what it says."""
    return f"{_where(figures['machine'], part)}\n\n{_TEXTS[part](figures)}\n"


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


# Texts


def _qlora(figures: Figures) -> str:
    config, runs = figures["config"], figures["runs"]
    rows = []
    for way, own in runs.items():
        ends = [run[str(config["steps"])] for run in own]
        before = statistics.fmean(run["0"] for run in own)
        rows.append((way, f"{before:.4f}", *(f"{end:.4f}" for end in ends), f"{figures['final'][way]:.4f}"))
    seeds = [f"seed {seed}" for seed in range(len(next(iter(runs.values()))))]
    table = _table(("base", "before", *seeds, "mean"), [("float32 (LoRA)", *rows[0][1:]), ("NF4, double (QLoRA)", *rows[1][1:])])
    every = config["validate_every"]
    levels = [(one, None if two["steps"][0] is None or two["steps"][0] < every else two)
              for one, two in zip(figures["steps"]["training"], figures["steps"]["validation"], strict=True)]
    header = ("share of LoRA's improvement", *("training: LoRA", "QLoRA", "ratio"), *("text kept apart: LoRA", "QLoRA", "ratio"))
    steps = _table(
        header,
        [(f"{one['level']:.0%}", *_reached(one), *(_reached(two) if two else ("", "", ""))) for one, two in levels],
    )
    ratios = [row["ratio"] for pair in levels for row in pair if row is not None]
    never, largest = None in ratios, max((ratio for ratio in ratios if ratio is not None), default=0.0)
    ratio = figures["final_ratio"]
    late = "not every level was reached" if never else f"at most {largest - 1:+.1%} steps to the same loss"
    verdict = (f"QLoRA's last loss is {ratio - 1:+.2%} from LoRA's (wanted: within 5 %), {late} (wanted: at most +20 %): "
               f"{'both hold' if abs(ratio - 1) <= 0.05 and not never and largest <= 1.2 else 'this does NOT hold'}.")
    return (f"{_recipe(config)}, {len(seeds)} seeds. Loss on text kept apart, nats a byte.\n\n{table}\n\n"
            f"Steps until the mean over the seeds has come so far: of the training loss, the same batches in both, and of the loss on text "
            f"kept apart, where it is later than the first look after {every} steps.\n\n{steps}\n\n{verdict}")


def _ranks(figures: Figures) -> str:
    rows = []
    for row in figures["rows"]:
        mean = statistics.fmean(row["share_of_improvement"])
        each = ", ".join(f"{share:.1%}" for share in row["share_of_improvement"])
        rows.append((row["way"], f"{row['lr']:g}", f"{row['trained']:,}", f"{row['share_of_parameters']:.2%}",
                     f"{statistics.fmean(row['after']):.4f}", f"**{mean:.1%}** ({each})"))
    table = _table(("trained", "lr", "parameters", "share of all", "loss after", "share of the improvement (each seed)"), rows)
    tried = "; ".join(f"{way}: " + ", ".join(f"{lr} → {loss:.4f}" for lr, loss in found.items()) for way, found in figures["tried"].items())
    below = [row for row in figures["rows"] if row["share_of_parameters"] < 0.10]
    best = max(below, key=lambda row: statistics.fmean(row["share_of_improvement"]))
    share = statistics.fmean(best["share_of_improvement"])
    verdict = (f"With less than 10 % of the parameters the most is {share:.1%} of full fine-tuning's improvement, at {best['way']} with "
               f"{best['share_of_parameters']:.2%} (aimed at: 95 %): {'it is reached' if share >= 0.95 else 'it is NOT reached'}.")
    return (f"{_recipe(figures['config'], lr=False)}; loss before {figures['rows'][0]['before']:.4f} nats a byte, on text kept apart. The "
            f"learning rates were chosen by a run each with seed 0 (loss after: {tried}); LoRA's other ranks take that of r=8.\n\n"
            f"{table}\n\n{verdict}")


def _quantized(figures: Figures) -> str:
    first = figures["rows"][0]
    table = _table(
        ("base", "loss", "perplexity", "against float32", "bytes"),
        [(row["base"], f"{row['loss']:.5f}", f"{row['perplexity']:.4f}", f"{row['worse']:+.2%}", amount(row["bytes"]))
         for row in figures["rows"]],
    )
    worst = max(row["worse"] for row in figures["rows"] if row is not first)
    return (f"Perplexity by byte over {figures['tokens']:,} bytes of the library's source that were kept apart in pre-training; the "
            f"matrices of the blocks in 4 bits, embeddings and norms in float32; blocks of 64 where nothing else is said.\n\n{table}\n\n"
            f"The worst is {worst:+.2%} (wanted: within 5 %): {'it holds' if worst <= 0.05 else 'it does NOT hold'}.")


def _tiers(figures: Figures) -> str:
    rows = []
    for row in figures["rows"]:
        asked = [check for check in row["checks"] if check["kept"] is not None]
        losses = ", ".join(f"{before:.3f} → {after:.3f} ({after / before - 1:+.0%})" for before, after in row["losses"]) or "–"
        peaks = [check["saw"] for check in row["checks"] if "resident" in check["asked"]]
        rows.append((row["tier"], str(figures["steps"][row["tier"]]), losses if not peaks else f"peak {peaks[0]}",
                     f"{sum(check['kept'] for check in asked)} of {len(asked)}", "yes" if row["kept"] else "**NO**"))
    return _table(("tier", "steps", "loss on text kept apart, by seed", "checks that hold", "passed"), rows)


def _peft(figures: Figures) -> str:
    rows = [(", ".join(row["targets"]), str(row["r"]), f"{row['batch']} × {row['length']}", f"{row['seconds']['ours'] * 1e3:.1f}",
             f"{row['seconds']['peft'] * 1e3:.1f}", f"**{row['speedup']:.2f}**",
             f"{row['differences'][0]:.0e}, {max(row['differences']):.0e}")
            for row in figures["rows"]]
    table = _table(("adapters on", "r", "tokens", "ours, ms", "peft, ms", "times faster", "losses differ by: at first, at most"), rows)
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    enough = [row["speedup"] >= 1.5 for row in figures["rows"]]
    return (f"One update (forward, backward, clipping, AdamW; fused on PyTorch's side), the same weights, adapters and batch in both, in "
            f"turn in one process of one thread; medians of processor time{_load(figures)}. {versions}.\n\n{table}\n\n"
            f"Wanted: 1.5 times; reached in {sum(enough)} of {len(enough)} rows.")


def _cost(figures: Figures) -> str:
    rows = [(row["way"], f"{row['parameters']:,}", amount(row["trained_bytes"]), amount(row["gradient_bytes"]), amount(row["state_bytes"]),
             amount(row["frozen_bytes"]), f"{row['seconds'] * 1e3:.1f}", f"{row['against_full']:.2f}") for row in figures["rows"]]
    table = _table(("trained", "parameters", "their bytes", "gradients", "AdamW's states", "frozen", "step, ms", "of a full step"), rows)
    return (f"All linear layers; steps of {figures['batch']} × {figures['length']} tokens, in turn in one process; medians of processor "
            f"time{_load(figures)}.\n\n{table}")


# Drawings


def _draw_qlora(figures: Figures, curves: Any, ends: Any) -> None:
    styles = dict(lw=3.2, alpha=0.55), dict(lw=1.6, ls=(0, (4, 2)))
    for (way, runs), color, style in zip(figures["losses"].items(), (BLUE, ORANGE), styles, strict=True):
        by_step = list(zip(*runs, strict=True))
        steps = range(1, len(by_step) + 1)
        curves.plot(steps, list(map(statistics.fmean, by_step)), color=color, label=f"{way}, training, mean of {len(runs)} seeds", **style)
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


# What they share


def _where(machine: Figures, part: str) -> str:
    blas = machine["processes"].get("blas", "")
    cpu = machine["cpu"].removeprefix("cpu (").removesuffix(")")
    return (f"```sh\npython -m benchmarks finetune {part}\n```\n\n{cpu}, {machine['cores']} cores, {machine['threads']} thread; NumPy "
            f"{machine['processes']['numpy']}, {blas}; {machine['date']}. Base: {machine['base']}.")


def _load(figures: Figures) -> str:
    load = figures["machine"].get("load", 0.0)
    return f" (other work shared the machine, with a load of {load:g})" if load > 1 else ""


def _recipe(config: Figures, *, lr: bool = True) -> str:
    rate = f", lr {config['lr']:g}" if lr else ""
    return (f"Adapters on all linear layers, r = {config['r']} where nothing else is said, α = 2r; from the library's source to "
            f"{config['text']}: {config['steps']} updates of {config['batch']} × {config['length']} bytes{rate}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _reached(row: Figures) -> tuple[str, str, str]:
    return _number(row["steps"][0], ".1f"), _number(row["steps"][1], ".1f"), _number(row["ratio"], ".2f")


def _number(value: float | None, form: str) -> str:
    return "never" if value is None else format(value, form)


_TEXTS: dict[str, Callable[[Figures], str]] = {
    "qlora": _qlora, "ranks": _ranks, "quantized": _quantized, "tiers": _tiers, "peft": _peft, "cost": _cost,
}
_DRAWINGS: dict[str, Callable[..., None]] = {"qlora": _draw_qlora, "ranks": _draw_ranks, "cost": _draw_cost}
