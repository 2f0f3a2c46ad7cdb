"""What a person sees of a run: results on stdout, progress on stderr (a bar on a terminal, plain lines elsewhere)."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from byhand.routing_metrics import LayerRouting


class Display:
    """A table of losses that grows by a line every `every` steps and wherever a validation loss was taken; NO_COLOR is honoured.

    backends : the names of one implementation, or of two, which are then shown side by side with their difference
    """

    def __init__(self, steps: int, every: int, backends: Sequence[str]):
        self._steps, self._every, self._backends = steps, every, backends
        self._out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)  # a file has no width
        self._log = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._log, transient=True, redirect_stdout=False, redirect_stderr=False, disable=not self._log.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """A line of results."""
        self._bar.stop()  # a bar below a line that goes to another stream would be torn
        self._out.print(text, style=style, markup=False)

    def show(self, table: Table) -> None:
        """A table of rich's among the results."""
        self._bar.stop()
        self._out.print(table, soft_wrap=False)

    def header(self, *, routed: bool = False) -> None:
        """The names of the table's columns; with experts, there is one for the busiest of all: its share over an even one."""
        difference = f"{'difference':>12}" if len(self._backends) == 2 else ""
        busiest = f"{'busiest':>9}" if routed else ""
        self.say(f"{'step':>6}" + "".join(f"{name:>12}" for name in self._backends) + difference + busiest, style="bold")

    def step(self, together: Sequence[Any], routings: Sequence[Sequence[LayerRouting]] = ()) -> None:
        """One update of every implementation is done: their Progress, in order, and what the routers of each did."""
        done = together[0].step + 1
        rates = [f"{name} {p.metrics.tokens / p.metrics.seconds:,.0f}" for name, p in zip(self._backends, together, strict=True)]
        speed = f"{', '.join(rates)} tokens/s"
        self._bar.update(self._task, completed=done, description=speed)
        if done == 1 or done % self._every == 0 or done == self._steps:
            self._row(f"{done:>6}", [p.metrics.loss for p in together], [layer.largest for routing in routings for layer in routing])
            if not self._log.is_terminal:
                self._log.print(f"byhand: step {done} of {self._steps}, {speed}", markup=False)
        if together[0].validation is not None:
            self._row(f"{'val':>6}", [p.validation for p in together])
        if done < self._steps and not self._bar.live.is_started:
            self._bar.start()

    def _row(self, label: str, losses: Sequence[float], largest: Sequence[float] = ()) -> None:
        difference = f"{abs(losses[0] - losses[1]):>12.1e}" if len(losses) == 2 else ""
        busiest = f"{max(largest):>9.2f}" if largest else ""
        self.say(label + "".join(f"{loss:>12.6f}" for loss in losses) + difference + busiest)
