"""The losses of a run, what came of it in a line, and whether two implementations kept what was promised."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from byhand.routing_metrics import LayerRouting, average

PROMISED_FLOAT64 = 1e-9  # both curves, over the first hundred steps
PROMISED_FLOAT32 = 1e-5  # both first losses: one forward pass on equal weights
_RECENT = 10  # updates that say how the routers balance in the end


class History:
    """Losses by implementation, as they come."""

    def __init__(self, backends: Sequence[str]):
        self.losses: dict[str, list[float]] = {name: [] for name in backends}
        self.validation: dict[str, dict[int, float]] = {name: {} for name in backends}
        self._tokens = dict.fromkeys(backends, 0)
        self._seconds = dict.fromkeys(backends, 0.0)
        self._routing: dict[str, deque[Sequence[LayerRouting]]] = {name: deque(maxlen=_RECENT) for name in backends}

    def add(self, backend: str, progress: Any, routing: Sequence[LayerRouting] = ()) -> None:
        """One update's Progress, and what its routers did."""
        self.losses[backend].append(progress.metrics.loss)
        self._tokens[backend] += progress.metrics.tokens
        self._seconds[backend] += progress.metrics.seconds
        if progress.validation is not None:
            self.validation[backend][progress.step + 1] = progress.validation
        if routing:
            self._routing[backend].append(routing)

    def remember(self, record: Mapping[str, Any]) -> None:
        """One line of the metrics of an earlier run that this one goes on with."""
        name = record["backend"]
        self.losses[name].append(record["loss"])
        self._tokens[name] += record["tokens"]
        self._seconds[name] += record["seconds"]
        if record["validation"] is not None:
            self.validation[name][record["step"]] = record["validation"]
        if "routing" in record:
            self._routing[name].append([LayerRouting.read(layer) for layer in record["routing"]])

    def summary(self) -> list[str]:
        """A line for each implementation: how far the loss fell, how fast, and the best validation loss; a second one on its routers."""
        lines = []
        for name, losses in self.losses.items():
            best = min(self.validation[name], key=self.validation[name].__getitem__)
            seconds = self._seconds[name]
            lines.append(
                f"{name}: the loss went from {losses[0]:.3f} to {losses[-1]:.3f} ({losses[-1] / losses[0] - 1:+.0%}) "
                f"in {seconds:.1f} s ({self._tokens[name] / seconds:,.0f} tokens/s); "
                f"the best loss on text kept apart is {self.validation[name][best]:.3f}, after step {best}"
            )
            if self._routing[name]:
                lines.append(_routers(name, average(self._routing[name]), len(self._routing[name])))
        return lines

    @property
    def differences(self) -> list[float]:
        """|one − other| by step, where there are two implementations."""
        one, other = self.losses.values()
        return [abs(a - b) for a, b in zip(one, other, strict=True)]

    def verdict(self, dtype: str) -> tuple[bool, str]:
        """(whether two implementations kept the promise of that precision, the sentence that says why their curves are as they are)."""
        worst, first = max(self.differences), self.differences[0]
        scale = max(1.0, *next(iter(self.losses.values())))
        if dtype == "float64":
            within = max(self.differences[:100])
            kept = within <= PROMISED_FLOAT64 * scale
            steps = f"{len(self.differences)} steps" if len(self.differences) <= 100 else "the first 100 steps"
            return kept, (
                f"The curves {'lie on each other' if kept else 'PART'}: over {steps} they differ by at most {within:.1e}, "
                f"{'within' if kept else 'more than'} the {PROMISED_FLOAT64:g} that rounding in float64 leaves room for."
            )
        kept = first <= PROMISED_FLOAT32 * scale
        if not kept:
            return kept, f"The curves PART at the first step, before any update: {first:.1e}, more than the promised {PROMISED_FLOAT32:g}."
        return kept, (
            f"The curves start {first:.1e} apart and drift to at most {worst:.1e}: each side adds its float32 numbers in another order, "
            f"and AdamW, which divides each gradient by its own size, carries that rounding into the weights (in float64 the same run "
            f"stays below {PROMISED_FLOAT64:g})."
        )


def _routers(name: str, layers: Sequence[LayerRouting], updates: int) -> str:
    """How even the experts were used in the last updates, in the layer where that is worst."""
    worst = max(layers, key=lambda layer: layer.largest)
    entropy, balance = min(layer.entropy for layer in layers), max(layer.balance for layer in layers)
    several = f"the last {updates} updates" if updates > 1 else "the last update"
    return (
        f"{name}: over {several} the busiest expert, in {worst.layer}, had {worst.largest:.2f} times an even share; the entropy of use is "
        f"at least {entropy:.3f}, the balance loss at most {balance:.3f}; of all choices {max(layer.dropped for layer in layers):.1%} were "
        f"dropped at most"
    )
