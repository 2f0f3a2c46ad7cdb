"""`byhand memory`: what a step of fine-tuning takes, before anything is built; and, on request, what it really took."""

import dataclasses
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from byhand.checks import choice
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.finetuning.memory import MemoryPlan, measure_memory, plan_memory
from byhand.finetuning.report import amount
from byhand.training_config import PRESETS


def memory(model: str, *, measure: bool, **options: Any) -> bool:
    """Print the plan, and the measurement beside it; False if they are more than a tenth apart."""
    choice("memory", PRESETS, model=model)
    config: GPT2Config | LlamaConfig = PRESETS[model]
    plan = plan_memory(config, **options)
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    out.print(f"{model}, {config.parameters:,} parameters, {options['method']}, {options['batch']} × {options['length']} tokens, NumPy")
    out.print(_table(plan))
    if not measure:
        return True
    seen = measure_memory(model=model, **options)
    apart = plan.total / seen["total"] - 1
    out.print(f"measured: {amount(seen['total'])} at the peak (VmHWM), {amount(seen['built'])} until the model stood, "
              f"{amount(seen['step'])} in the step, which took {seen['milliseconds'] / 1000:.1f} s; the plan is {apart:+.1%} off")
    return abs(apart) <= 0.1


def _table(plan: MemoryPlan) -> Table:
    table = Table()
    table.add_column("resident")
    table.add_column("bytes", justify="right")
    for field in dataclasses.fields(plan):
        if field.name != "building":
            table.add_row(field.name, amount(getattr(plan, field.name)))
    table.add_row("peak of a step", amount(plan.step), style="bold")
    table.add_row("peak while the last block is made", amount(plan.interpreter + plan.weights + plan.building))
    return table
