"""What a step of fine-tuning takes: peak resident memory of the NumPy path against the plan; on a GPU, ours beside peft's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from byhand.configs.llama import LLAMA_PRESETS
from byhand.experiments.documentation import insert
from byhand.finetuning.memory import Method, measure_memory, plan_memory

BOUNDS = {"smollm2-135m": 512e6, "tinyllama-1.1b": 2e9, "llama-2-7b": 8e9}      # of QLoRA, 1 × 128 tokens
LARGEST_FLOAT = 2_000_000_000                                                   # parameters; above, float32 LoRA is planned only


def measure(models: list[str], out: Console) -> dict[str, Any]:
    """{"cpu": rows, "cuda": rows, where there is such a device}; a row is one model by one method."""
    figures: dict[str, Any] = {"cpu": []}
    for model in models:
        for method in ("qlora", "lora"):
            row = _row(model, method)
            out.print(f"{model}, {method}: {_mb(row.get('total'))}", highlight=False)
            figures["cpu"].append(row)
    if _has_cuda():
        figures["cuda"] = [_on_gpu(model, whose) for model in models for whose in ("byhand", "peft")]
    return figures


def show(figures: dict[str, Any], out: Console) -> None:
    """The tables of `measure`'s figures."""
    table = Table(title="peak resident memory (VmHWM) of one update, 1 × 128 tokens, recompute", title_justify="left")
    for column in ("model", "method", "measured", "bound", "planned", "plan off by", "built", "step", "seconds"):
        table.add_column(column, justify="left" if column in ("model", "method") else "right")
    for row in figures["cpu"]:
        total = row.get("total")
        off = f"{row['planned'] / total - 1:+.1%}" if total else "–"
        seconds = f"{row['milliseconds'] / 1000:.1f}" if total else "–"
        table.add_row(row["model"], row["method"], _mb(total), _mb(row.get("bound")), _mb(row["planned"]), off, _mb(row.get("built")),
                      _mb(row.get("step")), seconds)
    out.print(table)
    if "cuda" in figures:
        table = Table(title="torch.cuda.max_memory_allocated, the same update", title_justify="left")
        for column in ("model", "whose", "bytes"):
            table.add_column(column)
        for row in figures["cuda"]:
            table.add_row(row["model"], row["whose"], row.get("error") or _mb(row["allocated"]))
        out.print(table)


def document(figures: dict[str, Any], path: Path) -> None:
    """Write the table of `measure`'s figures between the marks finetune-memory of a document."""
    machine = figures["machine"]
    lines = ["```sh", "python -m benchmarks memory", "```", "", f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}.", "",
             "| model | method | measured | wanted below | planned | plan off by | seconds |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in figures["cpu"]:
        total = row.get("total")
        off, seconds = (f"{row['planned'] / total - 1:+.1%}", f"{row['milliseconds'] / 1000:.1f}") if total else ("", "")
        cells = (row["model"], row["method"], _mb(total), _mb(row.get("bound")), _mb(row["planned"]), off, seconds)
        lines.append(f"| {' | '.join(cells)} |")
    insert(path, "finetune-memory", "\n".join(lines))


def _row(model: str, method: Method) -> dict[str, Any]:
    config = LLAMA_PRESETS[model]
    row: dict[str, Any] = dict(model=model, method=method, planned=plan_memory(config, method=method).total)
    if method == "qlora" and model in BOUNDS:
        row["bound"] = int(BOUNDS[model])
    if method == "qlora" or config.parameters <= LARGEST_FLOAT:
        row |= measure_memory(model=model, method=method)
    return row


def _has_cuda() -> bool:
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=dict(os.environ)).returncode == 0


def _on_gpu(model: str, whose: str) -> dict[str, Any]:  # pragma: no cuda
    command = [sys.executable, "-m", "benchmarks.studies.memory_cuda", model, whose]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row = dict(model=model, whose=whose)
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    return row | json.loads(done.stdout.splitlines()[-1])


def _mb(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.0f} MB"
