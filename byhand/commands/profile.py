"""`byhand profile`: where the time and the memory of a training step or of a generation go, by component."""

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from byhand.checks import demand, size
from byhand.cli_common import log
from byhand.commands.generate import _prompt
from byhand.commands.generate_models import open_for
from byhand.commands.generate_task import Task
from byhand.generate_options import GenerateOptions
from byhand.model_source import build, model_class, open_weights
from byhand.noise import Noise
from byhand.profiling.flame import write_flame
from byhand.profiling.measure import Profile, profile_numpy
from byhand.profiling.options import ProfileOptions, StepOptions
from byhand.profiling.tables import numbers, summary_lines, table
from byhand.run_directory import write_whole
from byhand.torch_device import torch_on


def profile_step(model: str, options: StepOptions) -> None:
    """Measure one update of the weights: forward, backward, clipping and AdamW, on tokens drawn at random.

    Raises
    ------
    ValueError   if there is no such model, it is none that tells the next token, or it takes no texts of that length
    """
    title, run = training_step(model, options)
    _report("step", f"{title}, {options.batch} × {options.length} tokens, {options.dtype}, dropout {options.dropout:g}", run, options)


def profile_generation(model: str | None, prompt: str, count: int | None, options: GenerateOptions, how: ProfileOptions) -> None:
    """Measure the writing of one text: the prompt is read, and tokens follow one by one.

    Raises
    ------
    ValueError   as `byhand generate` does
    """
    if count is not None:
        size("generate", count=count)
    options.check(count)
    opened = open_for(model, options)
    task = Task(opened, _prompt(prompt), count, options)
    for line in options.idle(task.config):
        log(line)
    made = opened.build(adapted=True)
    written = task.run(made, None).texts[0].tokens
    _report("generation", f"{opened.title}, {len(task.prompt)} tokens read, {len(written)} written, {opened.dtype}",
            lambda: task.run(made, None), how)


def training_step(model: str, options: StepOptions) -> tuple[str, Callable[[], Any]]:
    """What the model is, and what takes a step with it, StepMetrics being returned."""
    found = open_weights(model)
    kind = model_class(found.config, "numpy_impl", found.kind)
    reads = list(inspect.signature(kind.loss).parameters)[1:3] if hasattr(kind, "loss") else []
    demand("profile", reads == ["ids", "targets"] and hasattr(kind, "extend"),
           "a model that tells the next token: a GPT-2, Llama, Mixtral …", model=kind.__name__)
    demand("profile", options.length <= found.config.max_length, f"length <= {found.config.max_length}, the model's context",
           length=options.length)
    found = found._replace(config=dataclasses.replace(found.config, dropout=options.dropout))
    torch = torch_on("profile", options.device) if options.backend == "torch" else None
    made = build(found, seed=options.seed, side=options.backend, dtype=options.dtype, device=options.device)
    tokens = np.random.default_rng(options.seed).integers(found.config.vocabulary, size=(options.batch, options.length + 1))
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    random = options.dropout or getattr(found.config, "jitter", 0) or getattr(found.config, "noisy", False)
    noise, kept = Noise(options.seed) if random else None, "recompute" if options.recompute else "keep"
    how: dict[str, Any] = dict(max_norm=1.0, noise=noise, run=kept)
    if torch is None:
        from numpy_impl.optim.adamw import AdamW
        from numpy_impl.train.step import train_step

        adamw: Any = AdamW(made.parameters(), lr=1e-4)
        return found.title, lambda: train_step(made, adamw, [(ids, targets)], **how)
    from torch_impl.optim.adamw import AdamW as TorchAdamW
    from torch_impl.train.step import train_step as torch_step

    batch = tuple(torch.from_numpy(np.ascontiguousarray(part)).to(options.device) for part in (ids, targets))
    adamw = TorchAdamW(dict(made.named_parameters()), lr=1e-4)
    return found.title, lambda: torch_step(made, adamw, [batch], **how)


def _report(what: str, title: str, run: Callable[[], Any], options: ProfileOptions) -> None:
    side = "NumPy" if options.backend == "numpy" else f"PyTorch on {options.device}"
    log(f"{title}; {side}: {options.warmup} runs to warm up, {options.runs} plain, {options.runs} watched, one for memory")
    profile = _measured(what, run, options)
    for name in options.out:
        write_flame(Path(name), profile, title=f"{title}; {side}")
    if options.json is not None:
        file = Path(options.json)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(dict(title=title, side=side) | numbers(profile), indent=1).encode())
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    console.print(f"{title}; {side}\n", markup=False)
    tables = [table(profile, rows=options.rows)]
    if options.backend == "torch":
        tables.append(table(profile, rows=options.rows, of_operators=True))
    for made in tables:
        console.print(made, soft_wrap=False)
        console.print()
    for line in summary_lines(profile):
        console.print(line, markup=False)
    left = [name for name in (*options.out, options.json, options.trace) if name is not None]
    console.print("\n" + ", ".join(left), markup=False)


def _measured(what: str, run: Callable[[], Any], options: ProfileOptions) -> Profile:
    if options.backend == "numpy":
        return profile_numpy(what, run, runs=options.runs, warmup=options.warmup)
    from byhand.profiling.torch_profile import profile_torch

    trace = None if options.trace is None else Path(options.trace)
    return profile_torch(what, run, runs=options.runs, warmup=options.warmup, device=options.device, trace=trace)
