"""Which components there are: found from the case files, never listed by hand."""

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from parity.values import Census, Draw, Example, Large

_CASES: dict[str, "Component"] = {}
_BROKEN: dict[str, str] = {}


@dataclasses.dataclass
class Component:
    """A registered component: its name, where its two implementations live, and what it is fed."""

    name: str
    file: str                                  # dotted path below the implementation's root: ops.layer_norm
    draw: Callable[[Draw], dict[str, Any]]
    explicit_kind: str | None = None
    gradient: bool = True
    refuses: Sequence[dict[str, Any]] = ()
    also: Sequence[Callable] = ()
    fixed: dict[str, str] = dataclasses.field(default_factory=dict)
    detached: tuple[str, ...] = ()
    equivalent: dict[str, str] = dataclasses.field(default_factory=dict)
    fill: dict[str, Any] = dataclasses.field(default_factory=dict)
    skip: dict[str, str] = dataclasses.field(default_factory=dict)
    build: Callable | None = None
    play: Callable | None = None
    bench: dict[str, Any] | None = None

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def public(self) -> str:
        return self.name.split(".")[-1]

    @property
    def kind(self) -> str:
        """op, value, module, optimizer, initialiser or play."""
        if self.explicit_kind:
            return self.explicit_kind
        if self.play:
            return "play"
        if inspect.isclass(self.implementation("numpy")):
            return "module"
        return "op" if self.gradient else "value"

    def implementation(self, side: str) -> Any:
        """The function or class of one side, 'numpy' or 'torch'."""
        return getattr(importlib.import_module(f"{side}_impl.{self.file}"), self.public)

    def example(self, key: str, draw: Draw) -> Example:
        """One example drawn through `draw`, its values keyed by (component, key)."""
        return Example(f"{self.name}/{key}", draw.ordinary, self.draw(draw))

    def large(self) -> Example:
        """The example that benchmarks time: the case's own, or a draw in which every free shape is (4096, 768)."""
        return Example(f"{self.name}/large", True, self.draw(Large()) if self.bench is None else self.bench)

    def census(self, count: int, seed: int = 0, *, edges: bool = False) -> list[Example]:
        """`count` diverse examples: every second one ordinary, or all of them of size 0 and 1 where the case allows it."""
        keys = [f"seed {seed}, {'edge' if edges else 'example'} {i}" for i in range(count)]
        return [
            self.example(key, Census(f"{self.name}/{key}", ordinary=not edges and i % 2 == 0, edges=edges)) for i, key in enumerate(keys)
        ]


def case(
    name: str,
    *,
    kind: str | None = None,
    gradient: bool = True,
    refuses: Sequence[dict[str, Any]] = (),
    also: Sequence[Callable] = (),
    fixed: dict[str, str] | None = None,
    detached: tuple[str, ...] = (),
    equivalent: dict[str, str] | None = None,
    fill: dict[str, Any] | None = None,
    skip: dict[str, str] | None = None,
    build: Callable | None = None,
    play: Callable | None = None,
    bench: dict[str, Any] | None = None,
) -> Callable:
    """Register the decorated function as what the component `name` is fed; docs/adding_a_component.md explains the options."""
    if kind not in (None, "op", "value", "module", "optimizer", "initialiser", "play"):
        raise ValueError(f"case({name!r}) needs kind from op, value, module, optimizer, initialiser, play; got {kind!r}")

    def register(draw: Callable) -> Callable:
        file = draw.__module__.removeprefix("parity.cases.")
        if file.split(".")[0] != name.split(".")[0]:
            raise ValueError(f"case({name!r}) needs to stand in the room of its component; it stands in {draw.__module__}")
        if name in _CASES and _CASES[name].file != file:
            raise ValueError(f"case({name!r}) is registered twice, in {_CASES[name].file} and {file}")
        _CASES[name] = Component(
            name=name,
            file=file,
            draw=draw,
            explicit_kind=kind,
            gradient=gradient,
            refuses=refuses,
            also=also,
            fixed=fixed or {},
            detached=detached,
            equivalent=equivalent or {},
            fill=fill or {},
            skip=skip or {},
            build=build,
            play=play,
            bench=bench,
        )
        return draw

    return register


@functools.cache
def _discover() -> None:
    import parity.cases

    for module in pkgutil.walk_packages(parity.cases.__path__, "parity.cases."):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            _BROKEN[module.name] = f"{type(error).__name__}: {error}"


def components() -> dict[str, Component]:
    """Every registered component by name, rooms and names in alphabetical order."""
    _discover()
    return dict(sorted(_CASES.items()))


def broken() -> dict[str, str]:
    """Case files that cannot be imported, with the error: `run` and `mirror` fail because of them, the others are still checked."""
    _discover()
    return dict(_BROKEN)


def find(name: str) -> Component:
    """The one component of that name.

    Raises
    ------
    ValueError   if there is none or if it means several; the nearest names are suggested
    """
    found = select([name])
    if len(found) != 1:
        raise ValueError(f"parity needs the name of one component; {name!r} means {', '.join(c.name for c in found)}")
    return found[0]


def select(names: Iterable[str] = ()) -> list[Component]:
    """The components that the names mean; all if none are given.

    A name is a component (`ops.gelu` or just `gelu`), a file (`ops/gelu.py`) or a room (`ops`).
    """
    known = components()
    names = list(names)
    if not names:
        return list(known.values())
    chosen: dict[str, Component] = {}
    for name in names:
        dotted = name.removesuffix(".py").rstrip("/").replace("/", ".").removeprefix("numpy_impl.").removeprefix("torch_impl.")
        hits = [c for c in known.values() if dotted == (c.file if "/" in name or name.endswith(".py") else c.name)]
        hits = hits or [c for c in known.values() if dotted in (c.room, c.public)]
        hits = hits or [c for c in known.values() if dotted == c.file]
        if not hits:
            pool = [*known, *(c.public for c in known.values()), *{c.room for c in known.values()}]
            near = difflib.get_close_matches(dotted, pool, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
            hint += "".join(f"; {file} cannot be imported: {why}" for file, why in broken().items())
            raise ValueError(f"parity needs the name of a component, a file or a room; got {name!r}{hint}")
        chosen |= {c.name: c for c in hits}
    return list(chosen.values())
