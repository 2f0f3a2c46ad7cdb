"""What can be timed: a row of the benchmark and the work that each of its columns does.

A file of `benchmarks.workloads` registers whole workloads, one of `benchmarks.peers` other libraries that do the same work; the components
come from the registry of `parity`. Nothing is listed by hand: a new file is found.

    @workload("GPT training step", {"medium": {"d256 L4": {"d_model": 256, "n_layers": 4}}}, threads=(1, 2), compiled=True)
    def gpt_training_step(column, *, d_model, n_layers):
        ...
        return Work(run)

    @peer("jax.jit", of="GPT training step", needs="jax")
    def jax_step(*, d_model, n_layers):
        ...
        return Work(run, numbers=...)
"""

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = ("small", "medium", "large")


@dataclasses.dataclass(frozen=True)
class Column:
    """Who does the work.

    name : "numpy", "torch", "onednn" (PyTorch's products through oneDNN), "compiled" (torch.compile on the CPU), "cuda" or "cuda compiled"
    """

    name: str

    @property
    def side(self) -> Literal["numpy", "torch"]:
        return "numpy" if self.name == "numpy" else "torch"

    @property
    def device(self) -> str:
        return "cuda" if self.name.startswith("cuda") else "cpu"

    @property
    def compiled(self) -> bool:
        return self.name.endswith("compiled")

    def compile(self, function: Callable) -> Callable:
        """The function, through torch.compile where the column asks for it."""
        if not self.compiled:
            return function
        import torch

        return torch.compile(function)


@dataclasses.dataclass
class Work:
    """One workload prepared for one column.

    run : does the work once, on arrays that are already where they are needed
    with_transfers : the same from arrays of the host to results on the host (CUDA only)
    numbers : what the work computes, as NumPy arrays by name; every column that gives a name must give the same numbers. Called once,
        before anything is timed, on the state that was built: it may change that state.
    flops : of the matrix products of one run; counted on PyTorch's side where None
    bytes : what one run must read and write at least: every operand and result once; counted from the leaves where None
    unit, units : what one run makes, where seconds say less than a rate: ("tokens", 128)
    """

    run: Callable[[], Any]
    with_transfers: Callable[[], Any] | None = None
    numbers: Callable[[], Mapping[str, Any]] | None = None
    flops: float | None = None
    bytes: float | None = None
    unit: str | None = None
    units: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the benchmark: a component, or a workload at one point of its axis."""

    name: str
    group: Literal["components", "workloads", "scaling"]
    family: str                                     # rows of one curve share it; a component's room
    build: Callable[..., Work]
    options: Mapping[str, Any]
    threads: tuple[int, ...] = (1,)
    axis: str | None = None                         # what changes along the curve: "length", "width", …
    at: float | None = None
    compiled: bool = False
    columns: tuple[str, ...] | None = None          # only these, where not all can do the work

    def work(self, column: Column) -> Work:
        """The work prepared for a column."""
        return self.build(column, **self.options)


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library that does the work of a row.

    of : the family of a workload, or a component;  needs : the distribution it comes from
    """

    name: str
    of: str
    needs: str
    build: Callable[..., Work]

    @property
    def version(self) -> str | None:
        """Of the installed distribution; None where it is absent."""
        try:
            return importlib.metadata.version(self.needs)
        except importlib.metadata.PackageNotFoundError:
            return None


Points = Mapping[str, Mapping[str, Any]] | Sequence[float]
_ROWS: dict[Size, list[Row]] = {size: [] for size in SIZES}
_PEERS: list[Peer] = []


def workload(
    name: str,
    points: Mapping[Size, Points],
    *,
    axis: str | None = None,
    threads: tuple[int, ...] = (1,),
    compiled: bool = False,
    columns: tuple[str, ...] | None = None,
) -> Callable[[Callable[..., Work]], Callable[..., Work]]:
    """Register the decorated builder, `build(column, **options) -> Work`.

    Parameters
    ----------
    name:
        The family: what the work is, in a reader's words.
    points:
        By size of benchmark: options by label, or, with an axis, the numbers along it. A size that is left out has none of these rows.
    axis:
        The option that changes along a curve; such rows are drawn as scaling.
    threads:
        Numbers of threads at which it is measured.
    compiled:
        Whether torch.compile is a column.
    columns:
        Only these columns, where not all can do the work.
    """
    for size in points:
        if size not in SIZES:
            raise ValueError(f"workload needs sizes from {', '.join(SIZES)}; got {size!r} for {name!r}")

    def register(build: Callable[..., Work]) -> Callable[..., Work]:
        shared: dict[str, Any] = dict(family=name, build=build, threads=threads, compiled=compiled, columns=columns)
        for size, chosen in points.items():
            if axis is not None:
                assert not isinstance(chosen, Mapping)
                rows = [Row(f"{name}, {axis} {at:g}", "scaling", options={axis: at}, axis=axis, at=at, **shared) for at in chosen]
            else:
                assert isinstance(chosen, Mapping)
                named = {f"{name}, {label}" if label else name: options for label, options in chosen.items()}
                rows = [Row(title, "workloads", options=options, **shared) for title, options in named.items()]
            _ROWS[size].extend(rows)
        return build

    return register


def peer(name: str, *, of: str, needs: str) -> Callable[[Callable[..., Work]], Callable[..., Work]]:
    """Register the decorated builder, `build(**options) -> Work` with `numbers`, as what another library needs for the work of a family.

    For a component the only option is `size`; `benchmarks.components.inputs(name, size)` has the arrays that all columns get. A builder
    raises `Unable` for options that the library cannot do. What runs on a GPU has a name that ends in "(cuda)".
    """

    def register(build: Callable[..., Work]) -> Callable[..., Work]:
        _PEERS.append(Peer(name, of, needs, build))
        return build

    return register


class Unable(Exception):
    """A library that cannot do this work at these options says so."""


@cache
def _discover(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)


def workload_rows(size: Size) -> list[Row]:
    """The registered workloads at a size."""
    _discover("benchmarks.workloads")
    return list(_ROWS[size])


def peers() -> list[Peer]:
    """Every registered peer, installed or not."""
    _discover("benchmarks.peers")
    return list(_PEERS)


def peers_of(row: Row, among: Iterable[Peer] | None = None) -> list[Peer]:
    """The peers that know the work of a row: a component by its name, a workload by its family (a room may be called like one)."""
    known = row.name if row.group == "components" else row.family
    return [p for p in (peers() if among is None else among) if p.of == known]
