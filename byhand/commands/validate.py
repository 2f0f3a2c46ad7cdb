"""`byhand validate`: a tier of fine-tuning, what it asks and what it saw."""

import sys

from rich.console import Console
from rich.table import Table

from byhand.tiers.plan import TIERS, Plan, pretrained_path
from byhand.tiers.run import Result, carry_out, pretrain

_MARKS = {True: "[green]yes[/]", False: "[bold red]NO[/]", None: "–"}


def validate(plan: Plan) -> bool:
    """Run the tier and print it; False if anything that it asks does not hold.

    Raises
    ------
    ValueError       if the base, the text or the installation will not do
    NonFiniteError   if a loss or a gradient is not finite
    """
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    config = plan.config
    if config.base == str(pretrained_path()):
        pretrain(lambda text: out.print(text, markup=False))
    what = f"{config.method} r={config.r} on {', '.join(config.targets or ())}" if config.method == "lora" else config.method
    kept_in = f", base in {config.quantize}" if config.quantize != "none" else ""
    out.print(f"{plan.tier}: {TIERS[plan.tier].asks}", style="bold", markup=False)
    out.print(f"{what}{kept_in}; {config.base}, {config.steps} steps of {config.batch} × {config.length} tokens of {config.text}, "
              f"{config.backend}\n", markup=False)
    result = carry_out(plan)
    out.print(_table(result))
    out.print(f"\n{plan.tier}: {'all of it holds' if result.kept else 'it does NOT hold'}", style="green" if result.kept else "bold red")
    return result.kept


def _table(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("asked", ratio=5)
    table.add_column("seen", ratio=6)
    table.add_column("holds", justify="right")
    for check in result.checks:
        table.add_row(check.asked, check.saw, _MARKS[check.kept])
    return table
