"""What fine-tuning gives: QLoRA against LoRA, LoRA against training every weight, bases in 4 bits, and the validation tiers.

`python -m benchmarks finetune [PART…]`; a part returns figures that can be written as JSON, `finetune_report` beside this
file shows them, and `finetune_cost` measures what it costs.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from byhand import corpus
from byhand.commands.finetune_backends import numpy_base
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base, Quantization
from byhand.tiers.plan import make_plan
from byhand.tiers.run import carry_out
from byhand.tiers.watched import Trained, train

RANKS = (1, 2, 4, 8, 16, 32)
RATES = {"full": (1e-3, 2e-3, 4e-3), "lora": (5e-3, 1e-2, 2e-2)}      # tried before LoRA is compared with training everything
LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)                                  # of LoRA's improvement: how many steps to get so far
CONFIGS = sorted((Path(__file__).resolve().parent.parent / "examples" / "configs").glob("*.yaml"))
WINDOWS = dict(batch=16, length=64)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all parts share: the base, where it lies, sizes, and where to say how far it is."""

    base: Base
    where: str
    steps: int
    seeds: int
    rounds: int
    log: Console

    def config(self, **options: Any) -> FinetuneConfig:
        """LoRA of rank 16 on all linear layers, from the base to list operations, unless options say otherwise."""
        usual: dict[str, Any] = dict(
            base=self.where, targets=("all-linear",), r=16, alpha=32.0, text="list-operations", lr=5e-3, steps=self.steps,
            validate_every=max(1, self.steps // 20), sample=0, **WINDOWS,
        )
        return FinetuneConfig(**usual | options)

    def train(self, title: str, **options: Any) -> Trained:
        """One run; a line of progress."""
        result = train(self.config(**options), self.base)
        self.log.print(f"{title}: {result.before:.3f} to {result.after:.3f} in {sum(result.seconds):.0f} s", highlight=False)
        return result


def qlora(bench: Bench) -> dict[str, Any]:
    """The same run on a base in float32 and in NF4 with double quantization, for several seeds."""
    ways: dict[str, dict[str, Any]] = {"LoRA": {}, "QLoRA": dict(quantize="nf4", double=True)}
    runs: dict[str, list[Trained]] = {way: [] for way in ways}
    for seed in range(bench.seeds):
        for way, options in ways.items():
            runs[way].append(bench.train(f"{way}, seed {seed}", seed=seed, **options))
    means = {way: _mean_curve(own) for way, own in runs.items()}
    training = {way: dict(enumerate(map(statistics.fmean, zip(*(run.losses for run in own), strict=True)))) for way, own in runs.items()}
    steps = {"training": steps_to_level(*training.values()), "validation": steps_to_level(*means.values())}
    finals = {way: statistics.fmean(run.after for run in own) for way, own in runs.items()}
    return {
        "config": bench.config().as_dict(), "curves": means, "runs": {way: [_curve(run) for run in own] for way, own in runs.items()},
        "losses": {way: [run.losses for run in own] for way, own in runs.items()}, "final": finals,
        "final_ratio": finals["QLoRA"] / finals["LoRA"], "steps": steps,
        "kept": all(check.kept is not False for own in runs.values() for run in own for check in run.checks),
    }


def steps_to_level(one: Mapping[int, float], other: Mapping[int, float]) -> list[dict[str, Any]]:
    """For shares of the first curve's improvement, the steps after which each has come so far, and their ratio; None: never."""
    first, last = one[min(one)], one[max(one)]
    rows = []
    for level in LEVELS:
        loss = first - level * (first - last)
        mine, theirs = _reached(one, loss), _reached(other, loss)
        ratio = theirs / mine if mine and theirs is not None else None
        rows.append({"level": level, "loss": loss, "steps": [mine, theirs], "ratio": ratio})
    return rows


def _reached(curve: Mapping[int, float], loss: float) -> float | None:
    """The step at which a curve first falls to a loss, between two looks on a straight line."""
    steps = sorted(curve)
    for before, step in itertools.pairwise(steps):
        if curve[step] <= loss:
            fall = curve[before] - curve[step]
            return before + (step - before) * min(1.0, (curve[before] - loss) / fall if fall > 0 else 1.0)
    return None


def ranks(bench: Bench) -> dict[str, Any]:
    """What share of full fine-tuning's improvement LoRA gives at each rank, and with what share of the parameters."""
    ways: dict[str, dict[str, Any]] = {"full": dict(method="full")}
    ways |= {f"r={r}": dict(r=r, alpha=2.0 * r) for r in RANKS}
    tried: dict[str, dict[float, Trained]] = {}
    for kind, way in (("full", "full"), ("lora", "r=8")):
        tried[way] = {lr: bench.train(f"{way}, lr {lr:g}", lr=lr, **ways[way]) for lr in RATES[kind]}
    best = {way: min(found, key=lambda lr: found[lr].after) for way, found in tried.items()}
    rows: list[dict[str, Any]] = []
    for way, options in ways.items():
        lr = best["full"] if way == "full" else best["r=8"]
        runs = [tried[way][lr] if seed == 0 and way in tried else bench.train(f"{way}, seed {seed}", lr=lr, seed=seed, **options)
                for seed in range(bench.seeds)]
        rows.append({
            "way": way, "lr": lr, "trained": runs[0].trained, "share_of_parameters": runs[0].trained / runs[0].total,
            "before": statistics.fmean(run.before for run in runs), "after": [run.after for run in runs], "curve": _mean_curve(runs),
        })
    full = rows[0]["before"] - statistics.fmean(rows[0]["after"])
    for row in rows:
        row["share_of_improvement"] = [(row["before"] - after) / full for after in row["after"]]
    return {"config": bench.config().as_dict(), "rows": rows,
            "tried": {way: {f"{lr:g}": run.after for lr, run in found.items()} for way, found in tried.items()}}


def quantized(bench: Bench) -> dict[str, Any]:
    """Perplexity of the base on the text it was trained on, kept apart, in full precision and in 4 bits."""
    from numpy_impl.train.evaluate import evaluate

    _, apart = corpus.split(corpus.load("library").tokens)
    length = min(128, bench.base.config.max_length)
    batches = corpus.spread(apart, batch=16, length=length, count=4 * bench.rounds)
    kinds: dict[str, Quantization | None] = {
        "float32": None, "NF4": Quantization("nf4"), "NF4, double": Quantization("nf4", double=True), "FP4": Quantization("fp4"),
        "NF4, blocks of 256": Quantization("nf4", 256),
    }
    rows: list[dict[str, Any]] = []
    for name, how in kinds.items():
        model = numpy_base(bench.base, how, rng=np.random.default_rng(0))
        loss = evaluate(model, batches)
        nbytes = sum(array.nbytes for array in model.state_dict().values())
        rows.append({"base": name, "loss": loss, "perplexity": math.exp(loss), "bytes": nbytes,
                     "worse": math.exp(loss - (rows[0]["loss"] if rows else loss)) - 1})
    return {"tokens": sum(ids.size for ids, _ in batches), "rows": rows}


def tiers(bench: Bench) -> dict[str, Any]:
    """Every validation tier, and the shipped configurations against noise."""
    own: dict[str, Any] = dict(model=bench.where)
    nano: dict[str, Any] = dict(options=dict(batch=4, length=32, adapter_dropout=0.1))
    plans = [("quick", make_plan("quick", **own)), ("convergence", make_plan("convergence", **own)), ("long", make_plan("long", **own)),
             ("resume", make_plan("resume", **own, **nano)), ("memory", make_plan("memory", **own, bound=96)),
             ("quick, SmolLM2-135M", make_plan("quick", model="smollm2-135m")),
             ("memory, SmolLM2-135M", make_plan("memory", model="smollm2-135m"))]
    plans += [(f"convergence, {file.stem}", make_plan("convergence", file=file, options=dict(steps=30), **own)) for file in CONFIGS]
    rows: list[dict[str, Any]] = []
    for title, plan in plans:
        result = carry_out(plan)
        rows.append({"tier": title, "kept": result.kept, "checks": [check._asdict() for check in result.checks],
                     "losses": [(run.before, run.after) for run in result.runs]})
        bench.log.print(f"{title}: {'holds' if result.kept else 'does NOT hold'}", highlight=False)
    return {"steps": {title: plan.config.steps for title, plan in plans}, "rows": rows}


def _curve(run: Trained) -> dict[int, float]:
    return dict(sorted(run.validation.items()))


def _mean_curve(runs: Sequence[Trained]) -> dict[int, float]:
    return {step: statistics.fmean(run.validation[step] for run in runs) for step in sorted(runs[0].validation)}
