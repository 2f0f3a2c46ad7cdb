"""The commands around adapters: to train them, to use and merge them, to prepare a base for them, to tell the memory they take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from byhand.checks import demand
from byhand.cli_common import FAILED, OK, log, threads, tune, with_options
from byhand.finetune_config import FinetuneConfig, config_of_run
from byhand.run_config import resolve
from byhand.training_config import PRESETS


def finetune(*, config: Path | None = None, **options: Any) -> int:
    """Fine-tune a model on text with adapters (LoRA, DoRA, IA³ …), on a base that may be quantized to 4 bits (QLoRA).

    Parameters
    ----------
    config
        A .json or .yaml file with any of these options; the command line overrules it.
    """
    resolved = resolve(FinetuneConfig, config, **options)
    settings = resolved
    if resolved.resume is not None:
        others = [name for name, value in options.items() if value is not None and name != "resume"]
        demand("finetune", config is None and not others, "--resume without other options: the run goes on with its own",
               options=["config"] * (config is not None) + others)
        settings = config_of_run(resolved.resume)
    note = threads(settings, large=is_large(str(settings.base)))
    if note:
        log(note)
    from byhand.commands.finetune import finetune as work

    return OK if work(resolved).kept else FAILED


def is_large(base: str) -> bool:
    """Whether a base has 5 million parameters or more: by the preset, or by the files of a directory."""
    if base in PRESETS:
        return PRESETS[base].parameters >= 5_000_000
    files = [*Path(base).glob("*.safetensors"), *Path(base).glob("step-*/*.safetensors")]
    return sum(file.stat().st_size for file in files if file.is_file()) >= 20_000_000


def validate(tier: Literal["quick", "convergence", "long", "resume", "memory"], *, model: str | None = None, config: Path | None = None,
             bound: int | None = None, **options: Any) -> int:
    """Run a tier of fine-tuning that can fail: what it asks, what it saw, and 0 or 1.

    Where an option is not given, the tier's own counts, not the default told below: all-linear, r 16, list-operations, 16 × 64 tokens.

    Parameters
    ----------
    tier
        quick: 10 steps; convergence: 100, the loss must fall; long: 500; resume: killed and gone on with, bit by bit; memory: its peak.
    model
        What is fine-tuned, as --base; by default a llama-1m that is pre-trained on the standard library's source, once.
    config
        A .json or .yaml file with options of `byhand finetune`; the steps are the tier's.
    bound
        Of the tier memory, in 10⁶ bytes, for a model that has none stated.
    """
    from byhand.tiers.plan import make_plan

    plan = make_plan(tier, model=model, file=config, bound=bound, options=options)
    note = threads(plan.config, large=False)
    if note:
        log(note)
    from byhand.commands.validate import validate as work

    return OK if work(plan) else FAILED


def merge(model: str | None = None, *, adapter: str, out: str) -> int:
    """Add an adapter into its base's weights, and write the whole model as Hugging Face's hub holds it.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`. Not needed where the adapter is a run, which knows its base.
    adapter
        LoRA's files, peft's or ours, or the directory of a `byhand finetune`.
    out
        The new directory.
    """
    tune()
    from byhand.commands.adapters import merge as work

    work(model, adapter=adapter, out=out)
    return OK


def export(model: str, *, out: str, seed: int = 0) -> int:
    """Write a base as Hugging Face's hub holds a model, so that transformers loads it and peft puts adapters on it.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`.
    out
        The new directory.
    seed
        Of random weights.
    """
    tune()
    from byhand.commands.adapters import export as work

    work(model, out=out, seed=seed)
    return OK


def quantize(model: str, *, out: str, kind: Literal["nf4", "fp4"] = "nf4", block: int = 64, double: bool = False, seed: int = 0) -> int:
    """Write a base with the matrices of its blocks in 4 bits, one block at a time; stacks of experts stay in floats.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`.
    out
        The new directory.
    kind
        The table of 16 numbers.
    block
        How many numbers share a scale.
    double
        Quantize the scales too.
    seed
        Of random weights.
    """
    tune()
    from byhand.commands.adapters import quantize as work
    from byhand.finetuning.base import Quantization

    work(model, out=out, quantized=Quantization(kind, block, double), seed=seed)
    return OK


def memory(
    *,
    model: str,
    method: Literal["qlora", "lora", "full"] = "qlora",
    batch: int = 1,
    length: int = 128,
    r: int = 8,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    double: bool = True,
    recompute: bool = True,
    measure: bool = False,
) -> int:
    """Tell how much memory a step of fine-tuning takes in NumPy, before anything is built.

    Parameters
    ----------
    model
        A preset: smollm2-135m, tinyllama-1.1b, llama-2-7b …
    method
        qlora: matrices in 4 bits, and adapters; lora: matrices in float32, and adapters; full: every weight trains.
    batch
        Sequences in a step.
    length
        Tokens of each.
    r
        The rank of the adapters.
    targets
        The layers that get one.
    double
        Whether the scales of the 4-bit matrices are quantized too.
    recompute
        Whether blocks keep only their inputs.
    measure
        Run one step, with random weights and in a process of its own, and compare.
    """
    tune()
    from byhand.commands.memory import memory as work

    options: dict[str, Any] = dict(method=method, batch=batch, length=length, r=r, double=double, recompute=recompute)
    options["targets"] = [name for names in targets for name in names.split(",")]
    return OK if work(model, measure=measure, **options) else FAILED


COMMANDS: dict[str, Callable[..., int]] = {
    "finetune": with_options(finetune, FinetuneConfig), "validate": with_options(validate, FinetuneConfig),
    "merge": merge, "export": export, "quantize": quantize, "memory": memory,
}
