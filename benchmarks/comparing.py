"""What got slower since an earlier run: beyond the spread of both, and beyond how much the machine itself changed."""

import dataclasses
import math
import statistics
from typing import Any

_LEAST = 0.10                                          # below a tenth nothing is said: shared machines differ by that from run to run


@dataclasses.dataclass(frozen=True)
class Change:
    """One row in one column, then and now.

    ratio : time now over time then, the drift of the machine taken out;  beyond : what the spreads explain
    """

    name: str
    threads: int
    column: str
    before: float
    now: float
    ratio: float
    beyond: float

    @property
    def slower(self) -> bool:
        return self.ratio > 1 + self.beyond

    @property
    def faster(self) -> bool:
        return 1 / self.ratio > 1 + self.beyond


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows of both runs, and those only one has.

    drift : by column, how much faster or slower the machine is today: the median ratio over all rows
    """

    changes: list[Change]
    drift: dict[str, float]
    gone: list[str]
    new: list[str]

    @property
    def slower(self) -> list[Change]:
        return sorted((c for c in self.changes if c.slower), key=lambda c: -c.ratio)

    @property
    def faster(self) -> list[Change]:
        return sorted((c for c in self.changes if c.faster), key=lambda c: c.ratio)


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """Compare two runs, figures as `--json` writes them.

    A row is slower in a column if its median grew by more than both spreads together (each from the median to the upper or lower quartile,
    doubled) and by more than a tenth. Where ten rows or more are shared, the median change of the column is taken as the machine's own and
    divided out: a busy or another machine slows all rows alike, a change of code only some. What slows all of NumPy's rows but not
    PyTorch's, by more than a tenth on the same processor, is a change of code too: then PyTorch's change is the machine's. A load that
    comes and goes is seen by the row's other side, whose turns lie between its own: a column has changed as much as it has beside both,
    its own drift and the other side; and it has to change by more than three times as much as the column's rows commonly do.

    Raises
    ------
    ValueError   if either is not of schema 2, or they were run at different sizes
    """
    for figures in (old, new):
        if figures.get("schema") != 2:
            raise ValueError(f"compare needs two runs of `python -m benchmarks --json` (schema 2); got schema {figures.get('schema')!r}")
    if old["machine"]["size"] != new["machine"]["size"]:
        raise ValueError(f"compare needs two runs of one size; got {old['machine']['size']} and {new['machine']['size']}")
    before, now = _by_key(old), _by_key(new)
    shared = [key for key in now if key in before]
    ratios: dict[str, list[float]] = {}
    for key in shared:
        ratios.setdefault(key[2], []).append(now[key]["median"] / before[key]["median"])
    drift = {column: statistics.median(values) if len(values) >= 10 else 1.0 for column, values in ratios.items()}
    if len(ratios.get("torch", ())) >= 10 and _same_torch(old, new):
        for column in drift.keys() & {"numpy default", "numpy tuned"}:
            if abs(math.log(drift[column] / drift["torch"])) > math.log(1 + _LEAST):
                drift[column] = drift["torch"]
    changes: list[Change] = []
    for key in shared:
        then, today = before[key], now[key]
        spreads = sum(max(s["high"] - s["median"], s["median"] - s["low"]) / s["median"] for s in (then, today))
        ratio = today["median"] / then["median"]
        other = (*key[:2], "numpy default" if key[2] == "torch" else "torch")
        beside = now[other]["median"] / before[other]["median"] if other in before and other in now else drift[key[2]]
        ratio = _smaller_change(ratio / drift[key[2]], ratio / beside)
        changes.append(Change(*key, then["median"], today["median"], ratio, max(_LEAST, 2 * spreads)))
    unrest = {column: _unrest([change.ratio for change in changes if change.column == column]) for column in drift}
    changes = [dataclasses.replace(change, beyond=max(change.beyond, unrest[change.column])) for change in changes]
    return Comparison(changes, drift, [_title(key) for key in before if key not in now], [_title(key) for key in now if key not in before])


def _smaller_change(one: float, other: float) -> float:
    """The ratio that is closer to 1; 1 where one says slower and the other faster."""
    return 1.0 if (one > 1) != (other > 1) else min(one, other, key=lambda ratio: abs(math.log(ratio)))


def _unrest(ratios: list[float]) -> float:
    """Three standard deviations of the ratios' logarithms, as the median deviation tells them: a few true changes do not widen it."""
    if len(ratios) < 10:
        return 0.0
    common = statistics.median(ratios)
    return math.expm1(3 * 1.4826 * statistics.median(abs(math.log(ratio / common)) for ratio in ratios))


def _same_torch(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the same PyTorch ran on the same processor."""
    def told(figures: dict[str, Any]) -> list[Any]:
        processes = (figures["machine"].get("processes") or {}).values()
        return [figures["machine"].get("cpu"), {about["default"]["torch"] for about in processes if "default" in about}]

    return told(old) == told(new)


def _by_key(figures: dict[str, Any]) -> dict[tuple[str, int, str], dict[str, float]]:
    return {
        (row["name"], row["threads"], column): spread
        for row in figures["rows"]
        for column, spread in row["seconds"].items()
        if spread["median"] > 0 and math.isfinite(spread["median"])
    }


def _title(key: tuple[str, int, str]) -> str:
    return f"{key[0]} ({key[2]}, {key[1]} thread{'s' * (key[1] > 1)})"
