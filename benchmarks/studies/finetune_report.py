"""The figures of `python -m benchmarks finetune` for people: text with tables for each part."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.studies.finetune_figures import draw
from byhand.experiments.documentation import check, insert
from byhand.finetuning.report import amount

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
