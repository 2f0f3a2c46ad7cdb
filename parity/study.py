"""What is mutated, who judges it, and what came of it."""

import ast
import collections
import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Any

from parity import mutate
from parity.mutate import Mutant
from parity.registry import Component, components

ROOT = Path(__file__).resolve().parent.parent
ALL = 0.99  # the share of all mutants that must be killed; of the backward ones it is every one


# The sources


def module_of(component: Component) -> str:
    """The dotted name of its NumPy file."""
    return f"numpy_impl.{component.file}"


def file_of(module: str) -> Path:
    """Where a module of this repository lies."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def text_of(module: str) -> str:
    """The source of a module of this repository."""
    return file_of(module).read_text(encoding="utf-8")


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of this repository that a module imports, also inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text_of(module))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = ("numpy_impl", "torch_impl", "byhand", "parity")
    return frozenset(m for m in found if m.split(".")[0] in ours and m not in ("parity.cases",) and file_of(m).is_file())


# What is mutated


@dataclasses.dataclass(frozen=True)
class Subject:
    """Definitions of one NumPy file that are mutated together, and the components whose laws judge their mutants, in turn.

    A component is judged by its own laws; mutants of a private helper also by those of the file's other components that use it. A file
    that holds no component (the base class of the optimizers, say) is judged by the components that import it, or another such file that
    does.
    """

    name: str
    module: str
    publics: tuple[str, ...]
    judges: tuple[Component, ...]
    equivalent: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shared(self) -> bool:
        """Whether it is no component itself."""
        return self.name != self.judges[0].name

    def judges_of(self, mutant: Mutant, source: str) -> list[Component]:
        """Whose laws may kill this mutant."""
        if self.shared:
            return list(self.judges)
        own, *siblings = self.judges
        return [own, *(c for c in siblings if mutant.within != own.public and mutant.within in mutate.reached(source, c.public))]


def of_component(component: Component) -> Subject:
    """The subject that a component is."""
    siblings = (c for c in components().values() if c.file == component.file and c.name != component.name)
    return Subject(component.name, module_of(component), (component.public,), (component, *siblings), dict(component.equivalent))


@functools.cache
def shared() -> dict[str, Subject]:
    """The files that components share and that belong to none of them, by path: `ops/_blocks.py`."""
    found, built_on = {}, {c.name: _built_on(c) for c in components().values() if file_of(module_of(c)).is_file()}
    for module, names in unreached().items():
        judges = tuple(c for c in components().values() if module in built_on.get(c.name, ()))
        path = module.removeprefix("numpy_impl.").replace(".", "/") + ".py"
        if judges:
            found[path] = Subject(path, module, names, judges, _equivalents_of_shared(module))
    return found


def _built_on(component: Component) -> frozenset[str]:
    """What a component's file imports, and what is imported there by files that hold no component or a class that it derives from."""
    holding = {module_of(c) for c in components().values()}
    found: set[str] = set()
    waiting = [module_of(component)]
    while waiting:
        module = waiting.pop()
        new, derived = imports(module) - found, _bases(module)
        found |= new
        waiting += [name for name in new if name.startswith("numpy_impl.") and (name not in holding or name in derived)]
    return frozenset(found)


def _bases(module: str) -> frozenset[str]:
    """The modules from which a module imports what its classes derive from."""
    tree = ast.parse(text_of(module))
    bases = {base.id for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases if isinstance(base, ast.Name)}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return frozenset(str(node.module) for node in imported if bases & {alias.name for alias in node.names})


def _equivalents_of_shared(module: str) -> dict[str, str]:
    """The table EQUIVALENT of the file in parity/cases that has a shared file's path, if there is one."""
    cases = module.replace("numpy_impl.", "parity.cases.", 1)
    return dict(getattr(importlib.import_module(cases), "EQUIVALENT", {})) if file_of(cases).is_file() else {}


def unreached() -> dict[str, tuple[str, ...]]:
    """By module of numpy_impl: the definitions with something to mutate in which no component's mutants lie."""
    reached: dict[str, set[str]] = collections.defaultdict(set)
    for component in components().values():
        if file_of(module_of(component)).is_file():
            reached[module_of(component)] |= mutate.reached(text_of(module_of(component)), component.public)
    found = {}
    for path in sorted((ROOT / "numpy_impl").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        source = path.read_text(encoding="utf-8")
        names = [name for name in mutate.definitions(source) if name not in reached[module] and mutate.mutants(source, name)]
        if names:
            found[module] = tuple(names)
    return found


def subject(name: str) -> Subject:
    """The subject of that name."""
    return of_component(components()[name]) if name in components() else shared()[name]


# What came of it


@dataclasses.dataclass
class Study:
    """The mutants of one component and what killed each (None: it survived)."""

    name: str
    mutants: list[Mutant]
    verdicts: dict[str, str | None]
    equivalent: dict[str, str]
    error: str | None = None
    seconds: float = 0.0
    cached: bool = False

    @property
    def survivors(self) -> list[Mutant]:
        """Those that no law noticed and no entry of the case explains; where the clean source fails, nothing was tried."""
        return [] if self.error else [m for m in self.mutants if self.verdicts.get(m.key) is None and m.key not in self.equivalent]

    @property
    def stale(self) -> dict[str, str]:
        """Entries of the case's table that are not true (any more), and why."""
        known = {m.key for m in self.mutants}
        told = {}
        for key in () if self.error else self.equivalent:
            if key not in known:
                told[key] = "no such mutant"
            elif self.verdicts.get(key) not in (None, "time limit"):  # what only costs time may cost too much of it on a slow machine
                told[key] = f"it is killed, by the {self.verdicts[key]}"
        return told

    def figures(self, where: str) -> dict[str, int]:
        """total, killed and equivalent of the backward or of the forward mutants."""
        own = [m for m in self.mutants if m.where == where]
        killed = sum(self.verdicts.get(m.key) is not None for m in own)
        equivalent = sum(m.key in self.equivalent and self.verdicts.get(m.key) is None for m in own)
        return {"total": len(own), "killed": killed, "equivalent": equivalent}

    def to_json(self) -> dict[str, Any]:
        """One component of the JSON report."""
        told: dict[str, Any] = {"name": self.name, "backward": self.figures("backward"), "forward": self.figures("forward")}
        told["survivors"] = [{"key": m.key, "line": m.line, "operator": m.operator, "where": m.where} for m in self.survivors]
        told["equivalents"] = {key: reason for key, reason in self.equivalent.items() if key not in self.stale}
        told["killed_by"] = dict(collections.Counter(v.split(",")[0] for v in self.verdicts.values() if v is not None).most_common())
        told |= {"stale": self.stale} if self.stale else {}
        told |= {"error": self.error} if self.error else {}
        return told | {"seconds": round(self.seconds, 2), "cached": self.cached}


def summary(studies: list[Study]) -> dict[str, Any]:
    """The sums over all components, and whether the demands hold."""
    told: dict[str, Any] = {"components": len(studies)}
    for where in ("backward", "forward"):
        told[where] = {k: sum(s.figures(where)[k] for s in studies) for k in ("total", "killed", "equivalent")}
    told["all"] = {k: told["backward"][k] + told["forward"][k] for k in ("total", "killed", "equivalent")}
    for part in ("backward", "forward", "all"):
        counted = told[part]["total"] - told[part]["equivalent"]
        told[part]["share"] = told[part]["killed"] / counted if counted else 1.0
    told["errors"] = sum(s.error is not None for s in studies)
    told["stale"] = sum(len(s.stale) for s in studies)
    enough = told["backward"]["share"] == 1 and told["all"]["share"] >= ALL
    told["passed"] = bool(enough and not told["errors"] and not told["stale"])
    told["seconds"] = round(sum(s.seconds for s in studies), 1)
    return told
