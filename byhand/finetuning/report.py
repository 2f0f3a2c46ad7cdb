"""What trains and what is frozen, and what adapters save: in parameters and in bytes, a line for every layer, and in all."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from rich.table import Table

from byhand.checks import choice, demand, size
from byhand.finetuning.sizes import (
    STORAGES,
    Shape,
    Storage,
    Stored,
    adapter_parameters,
    check_shapes,
    trained_bytes,
    weight_bytes,
)


@dataclasses.dataclass(frozen=True)
class FreezeRow:
    """One module, or several of the same name in different blocks: what it holds, adapters included, and how much of it trains."""

    name: str
    parameters: int
    trainable: int
    bytes: int
    modules: int = 1

    @property
    def frozen(self) -> int:
        return self.parameters - self.trainable

    @property
    def share(self) -> float:
        """What trains, as a share of all; 0 of nothing."""
        return self.trainable / self.parameters if self.parameters else 0.0


@dataclasses.dataclass(frozen=True)
class FreezeReport:
    """What trains and what is frozen, module by module; `total` is the whole model."""

    rows: tuple[FreezeRow, ...]

    @property
    def total(self) -> FreezeRow:
        return _together("total", self.rows)

    def by_name(self) -> "FreezeReport":
        """The same with one row for all blocks: ``blocks.*.attn.q_proj``."""
        groups: dict[str, list[FreezeRow]] = {}
        for row in self.rows:
            groups.setdefault(_any_block(row.name), []).append(row)
        return FreezeReport(tuple(_together(name, rows) for name, rows in groups.items()))

    def table(self, *, every_block: bool = False) -> Table:
        """For rich's console: modules of the same name together, or every one."""
        shown, total = (self if every_block else self.by_name()), self.total
        table = Table(title=f"{total.trainable:,} of {total.parameters:,} parameters train ({total.share:.3%})", title_justify="left")
        _columns(table, "module", "parameters", "trainable", "frozen", "share", "bytes")
        for row in (*shown.rows, total):
            name = f"{row.name} × {row.modules}" if row.modules > 1 and row is not total else row.name
            table.add_row(name, f"{row.parameters:,}", f"{row.trainable:,}", f"{row.frozen:,}", f"{row.share:.2%}", amount(row.bytes),
                          style="bold" if row is total else "" if row.trainable else "dim")
        return table


def freeze_report(stored: Iterable[Stored]) -> FreezeReport:
    """What trains and what is frozen of all that a model holds; `byhand.finetuning.sizes.inventory(model)` lists it.

    An adapter counts to the module it is on.

    Examples
    --------
    >>> held = [Stored("q_proj.base.weight", (8, 8), 256, False), Stored("q_proj.adapters.default.lora_A", (2, 8), 64, True)]
    >>> freeze_report(held).rows
    (FreezeRow(name='q_proj', parameters=80, trainable=16, bytes=320, modules=1),)
    """
    rows: dict[str, FreezeRow] = {}
    for one in stored:
        name = re.sub(r"(^|\.)(adapters\..*|base$)", "", one.name.rpartition(".")[0]) or "(model)"
        row = rows.get(name, FreezeRow(name, 0, 0, 0))
        rows[name] = dataclasses.replace(row, parameters=row.parameters + one.parameters, bytes=row.bytes + one.bytes,
                                         trainable=row.trainable + (one.parameters if one.trains else 0))
    return FreezeReport(tuple(rows.values()))


@dataclasses.dataclass(frozen=True)
class LayerEfficiency:
    """One weight and the adapter on it."""

    name: str
    shape: Shape
    rank: int
    adapter: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def reduction(self) -> float:
        """How many times fewer parameters train; infinite where none does."""
        return self.parameters / self.adapter if self.adapter else math.inf


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of everything that stays from step to step; activations come on top."""

    base: int
    adapters: int
    gradients: int
    states: int

    @property
    def total(self) -> int:
        return self.base + self.adapters + self.gradients + self.states


@dataclasses.dataclass(frozen=True)
class EfficiencyReport:
    """What adapters cost and what they save, against training every parameter.

    layers : tuple      the adapted weights
    rest : int          parameters of the model outside of these, frozen
    base : str          how the adapted weights are stored: "float32", "bfloat16", "4bit" or "4bit-double"
    trained : str       how adapters, their gradients and the rest of the model are stored: "float32" or "bfloat16"
    states : int        float32 numbers that the optimizer keeps for each that trains
    block : int         weights that share a scale in 4 bits
    """

    layers: tuple[LayerEfficiency, ...]
    rest: int
    base: Storage
    trained: Storage
    states: int
    block: int

    @property
    def parameters(self) -> int:
        """Of the model, without adapters."""
        return self.rest + sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        return sum(layer.adapter for layer in self.layers)

    @property
    def share(self) -> float:
        """What trains, as a share of the model's own parameters."""
        return self.trainable / self.parameters

    @property
    def reduction(self) -> float:
        """How many times fewer parameters train than the model has."""
        return self.parameters / self.trainable if self.trainable else math.inf

    def memory(self, base: Storage | None = None) -> Memory:
        """Bytes with the adapted weights stored as `base` (None: as the report says)."""
        base = self.base if base is None else base
        weights = sum(weight_bytes(layer.parameters, base, block=self.block) for layer in self.layers)
        return self._memory(weights + weight_bytes(self.rest, self.trained), self.trainable)

    @property
    def full(self) -> Memory:
        """Bytes when every parameter of the model trains, without adapters: its weights are `base`."""
        memory = self._memory(0, self.parameters)
        return dataclasses.replace(memory, base=memory.adapters, adapters=0)

    @property
    def memory_reduction(self) -> float:
        """How many times less memory than training every parameter."""
        return self.full.total / self.memory().total

    def _memory(self, base: int, trained: int) -> Memory:
        size_of = weight_bytes(trained, self.trained)
        return Memory(base, size_of, size_of, trained * trained_bytes(self.trained, states=self.states) - 2 * size_of)

    def table(self, *, every_block: bool = False) -> Table:
        """For rich's console, layer by layer: equal ones in different blocks together, or every one."""
        table = Table(title=f"adapters: {self.trainable:,} parameters, {self.share:.3%} of the model's {self.parameters:,}",
                      title_justify="left")
        _columns(table, "layer", "shape", "rank", "parameters", "adapter", "reduction", "base", "adapter bytes", "gradients, states")
        counts = Counter((layer.name if every_block else _any_block(layer.name), layer.shape, layer.rank, layer.adapter)
                         for layer in self.layers)
        for (name, shape, rank, adapter), n in counts.items():
            layer, memory = LayerEfficiency(name, shape, rank, adapter), self._memory(0, n * adapter)
            base = n * weight_bytes(layer.parameters, self.base, block=self.block)
            table.add_row(f"{name} × {n}" if n > 1 else name, " × ".join(map(str, shape)), str(rank), f"{n * layer.parameters:,}",
                          f"{n * adapter:,}", _times(layer.reduction), amount(base), amount(memory.adapters),
                          amount(memory.gradients + memory.states))
        memory = self.memory()
        rest = amount(weight_bytes(self.rest, self.trained))
        table.add_row("the rest, frozen", "", "", f"{self.rest:,}", "0", "", rest, "0 B", "0 B", style="dim")
        table.add_row("total", "", "", f"{self.parameters:,}", f"{self.trainable:,}", _times(self.reduction), amount(memory.base),
                      amount(memory.adapters), amount(memory.gradients + memory.states), style="bold")
        return table

    def storages(self) -> Table:
        """For rich's console: the bytes for every way to store the adapted weights, against training every parameter."""
        table = Table(title="bytes from step to step, without activations", title_justify="left")
        _columns(table, "weights", "base", "adapters", "gradients", "states", "total", "reduction")
        for name, memory in [("all trained", self.full), *((storage, self.memory(storage)) for storage in STORAGES)]:
            parts = (memory.base, memory.adapters, memory.gradients, memory.states, memory.total)
            table.add_row(name, *map(amount, parts), _times(self.full.total / memory.total), style="bold" if name == self.base else "")
        return table


def efficiency_report(shapes: Mapping[str, Shape], ranks: Mapping[str, int], *, total: int | None = None, base: Storage = "float32",
                      trained: Storage = "float32", states: int = 2, block: int = 64, dora: bool = False) -> EfficiencyReport:
    """What adapters of these ranks on weights of these shapes cost and save.

    Parameters
    ----------
    shapes : dict     of the adapted weights by module name: (out, in), or a convolution's (out, in, …)
    ranks : dict      of the same names
    total : int       parameters of the whole model; None: of the adapted weights alone
    base, trained, states, block : as in `EfficiencyReport`;  states is 2 for AdamW
    dora : bool       whether every adapter has a length for each row besides

    Raises
    ------
    ValueError   if names differ, a shape or a rank is none, the model is smaller than its adapted weights, or a storage is unknown

    Examples
    --------
    >>> report = efficiency_report({"q_proj": (64, 64)}, {"q_proj": 4}, total=10_000, base="4bit")
    >>> report.trainable, report.layers[0].reduction, report.memory()
    (512, 8.0, Memory(base=25920, adapters=2048, gradients=2048, states=4096))
    >>> round(report.memory_reduction, 2)
    4.69
    """
    who = "efficiency_report"
    check_shapes(who, shapes)
    demand(who, isinstance(ranks, Mapping) and ranks.keys() == shapes.keys(), "a rank for each of the shapes", shapes=sorted(shapes),
           ranks=sorted(ranks) if isinstance(ranks, Mapping) else ranks)
    for name, rank in ranks.items():
        size(who, at_least=0, **{f"ranks[{name!r}]": rank})
    choice(who, STORAGES, base=base)
    choice(who, ("float32", "bfloat16"), trained=trained)
    size(who, at_least=0, states=states)
    size(who, block=block)
    layers = tuple(LayerEfficiency(name, tuple(shape), ranks[name], adapter_parameters(shape, ranks[name], dora=dora))
                   for name, shape in shapes.items())
    adapted = sum(layer.parameters for layer in layers)
    size(who, at_least=adapted, total=adapted if total is None else total)
    return EfficiencyReport(layers, 0 if total is None else total - adapted, base, trained, states, block)


def amount(count: int) -> str:
    """Bytes for a reader, in powers of 1024.

    Examples
    --------
    >>> amount(512), amount(1536), amount(8 * 2**30)
    ('512 B', '1.5 KiB', '8.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    power = min(int(math.log2(count)) // 10, 4)
    return f"{count / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def _any_block(name: str) -> str:
    return re.sub(r"(?<=\.experts\.)\d+", "*", re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name, count=1))


def _together(name: str, rows: Iterable[FreezeRow]) -> FreezeRow:
    rows = tuple(rows)
    return FreezeRow(name, sum(r.parameters for r in rows), sum(r.trainable for r in rows), sum(r.bytes for r in rows),
                     sum(r.modules for r in rows))


def _times(factor: float) -> str:
    return "∞" if math.isinf(factor) else f"{factor:,.1f} ×"


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
