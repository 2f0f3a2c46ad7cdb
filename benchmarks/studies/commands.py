"""The commands of the rooms' own studies: `python -m benchmarks attention | decode | finetune | memory | moe | quantize`."""

import datetime
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

out, log = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)  # a file has no width: tables need some


def _room(name: str, show_room: Callable[[dict[str, Any], Console], None], rounds: int, threads: int, json_: Path | None) -> int:
    """Measure a room by processes of its own, show its figures, and keep them as JSON."""
    from benchmarks.studies.timing import measure as measure_room
    from byhand.checks import size
    from parity.report import device_name

    size(f"benchmarks {name}", rounds=rounds, threads=threads)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "threads": threads, "date": datetime.date.today().isoformat()}
    figures = {"machine": machine} | measure_room(name, rounds, threads)
    show_room(figures, out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores, {threads} thread{'s' * (threads > 1)}.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def attention(
    *, rounds: int = 5, threads: int = 1, json_: Annotated[Path | None, Parameter(name="--json")] = None
) -> int:
    """Time and weigh attention: flash against plain and PyTorch, memory by length, windows, shared keys; on a GPU, every kernel.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Threads of NumPy's BLAS and of PyTorch.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.studies.attention import show as show_attention

    return _room("attention", show_attention, rounds, threads, json_)


def moe(
    *, rounds: int = 5, threads: int = 1, json_: Annotated[Path | None, Parameter(name="--json")] = None
) -> int:
    """Time a mixture of experts: sparse against dense, PyTorch's loop and transformers', 8 to 64 experts; on a GPU, grouped products.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Threads of NumPy's BLAS and of PyTorch.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.studies.moe import show as show_moe

    return _room("moe", show_moe, rounds, threads, json_)


def decode(
    *, rounds: int = 3, threads: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time the writing of text with a cache: one text, batches, contexts, kinds of cache, beams; against PyTorch and transformers.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Numbers of threads of NumPy's BLAS and of PyTorch; each is a process of its own.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.studies.decode import show as show_decode
    from benchmarks.studies.timing import measure as measure_room
    from byhand.checks import size
    from parity.report import device_name

    for count in threads:
        size("benchmarks decode", rounds=rounds, threads=count)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "date": datetime.date.today().isoformat()}
    figures: dict[str, Any] = {"machine": machine, "threads": {}}
    for count in threads:
        figures["threads"][str(count)] = measure_room("decode", rounds, count)
        show_decode(figures["threads"][str(count)], out)
        out.print(f"{machine['cpu']}, {machine['cores']} cores, {count} thread{'s' * (count > 1)}.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def memory(
    *models: str, json_: Annotated[Path | None, Parameter(name="--json")] = None, docs: Path | None = None, reuse: Path | None = None
) -> int:
    """Weigh a step of fine-tuning: peak memory of the NumPy path against its plan; on a GPU, ours beside peft's.

    Parameters
    ----------
    models:
        Presets; by default smollm2-135m, tinyllama-1.1b and llama-2-7b.
    json_:
        Write every figure as JSON.
    docs:
        A Markdown document: the table goes between its comments finetune-memory:start and finetune-memory:end.
    reuse:
        Figures of an earlier run, as --json wrote them, in place of a new one.
    """
    from benchmarks.studies.memory import BOUNDS, document
    from benchmarks.studies.memory import measure as measure_steps
    from benchmarks.studies.memory import show as show_steps
    from parity.report import device_name

    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"),
               "date": datetime.date.today().isoformat()}
    if reuse is None:
        figures = {"machine": machine} | measure_steps(list(models) or list(BOUNDS), log)
    else:
        figures = json.loads(reuse.read_text(encoding="utf-8"))
    show_steps(figures, out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores.", highlight=False)
    if docs:
        document(figures, docs)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    kept = all(row["total"] <= row.get("bound", row["total"]) for row in figures["cpu"] if "total" in row)
    return 0 if kept else 1


def quantize(
    *,
    rounds: int = 7,
    threads: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 2),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time 4-bit quantization: NumPy against bitsandbytes on the CPU.

    Parameters
    ----------
    rounds:
        How often the columns take turns.
    threads:
        Numbers of threads, of bitsandbytes and PyTorch; each is a process of its own.
    json_:
        Write every figure as JSON.
    """
    from benchmarks.studies.quantize import measure as measure_quantize
    from benchmarks.studies.quantize import show as show_quantize
    from byhand.checks import size
    from parity.report import device_name

    for count in threads:
        size("benchmarks quantize", rounds=rounds, threads=count)
    machine = {"cpu": device_name("cpu"), "cores": os.cpu_count(), "date": datetime.date.today().isoformat()}
    figures = {"machine": machine, "processes": measure_quantize(rounds, list(threads))}
    show_quantize(figures["processes"], out)
    out.print(f"{machine['cpu']}, {machine['cores']} cores. × is bitsandbytes' time over NumPy's.", highlight=False)
    if json_:
        json_.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def finetune(
    *parts: Literal["qlora", "ranks", "quantized", "tiers", "peft", "cost"],
    base: str | None = None,
    steps: int = 200,
    seeds: int = 3,
    rounds: int = 15,
    reuse: bool = False,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    docs: Path | None = None,
) -> int:
    """Ask what fine-tuning gives and costs: QLoRA against LoRA, LoRA against all weights, 4-bit bases, tiers, peft, ranks. One thread.

    Parameters
    ----------
    parts:
        Which of these questions; by default all.
    base:
        A base as for `byhand finetune`; by default a llama-1m that is pre-trained on the standard library's source, once.
    steps:
        Of each training.
    seeds:
        Of each comparison.
    rounds:
        How often timed steps take turns.
    reuse:
        Measure nothing: show what is in the JSON.
    json_:
        Write every figure as JSON, beside those of other parts that it holds.
    docs:
        A Markdown document: tables and figures go between its comments finetune-PART:start and finetune-PART:end.
    """
    from byhand import blas

    blas.threads(1)
    blas.tune()
    from benchmarks.studies.finetune_report import publish
    from benchmarks.studies.finetune_run import measure_parts, read_parts

    chosen = list(parts) or ["qlora", "ranks", "quantized", "tiers", "peft", "cost"]
    sizes = dict(steps=steps, seeds=seeds, rounds=rounds)
    figures = read_parts(chosen, json_) if reuse else measure_parts(chosen, base=base, json_=json_, log=log, **sizes)
    publish(figures, out, docs)
    return 0


COMMANDS = (attention, decode, finetune, memory, moe, quantize)
