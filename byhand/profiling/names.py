"""What is called what in a profile, and which functions of a package are its components."""

import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, Literal, NamedTuple

Kind = Literal["component", "operator", "outside"]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """An entry of a profile.

    name       "ops.linear", "layers.Block", "aten::addmm" …
    phase      "forward", "backward", or "" of what has no derivative
    kind       a component; an operator of PyTorch's, whose time is its caller's; or the work as a whole, outside of components
    inherits   whether it is part of whatever phase of the same component calls it: a method that has no pullback of its own

    Frames are equal only to themselves, which makes them quick to look up.
    """

    name: str
    phase: str = ""
    kind: Kind = "component"
    inherits: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} {self.phase}".strip()

    def goes_on(self, frame: "Frame") -> bool:
        """Whether a call of `frame` from here is no entry of its own: the methods of a layer are one with it."""
        return self.name == frame.name and (frame.inherits or self.phase == frame.phase)

    def backward(self) -> "Frame":
        """The same component's pullback."""
        return dataclasses.replace(self, phase="backward", inherits=False)


class Component(NamedTuple):
    """A function of a package that is called by name, or a method of a class that is; `owner` is the class, None of a function."""

    function: FunctionType
    owner: type | None
    frame: Frame


def components_of(package: str) -> Iterator[Component]:
    """The public functions in the package's rooms, and the public methods of classes, as far as they are imported.

    Examples
    --------
    >>> from numpy_impl.ops.linear import linear
    >>> [found.frame.label for found in components_of("numpy_impl") if found.function is linear]
    ['ops.linear forward']
    """
    for name, module in sorted(sys.modules.items()):
        if name.startswith(f"{package}.") and name.count(".") == 2:
            yield from _components_in(module)


def _components_in(module: ModuleType) -> Iterator[Component]:
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    public_file = not module.__name__.rpartition(".")[2].startswith("_")
    for name, value in own.items():
        if isinstance(value, FunctionType) and public_file and not name.startswith("_"):
            yield Component(value, None, _frame(value, None))
        elif isinstance(value, type) and not issubclass(value, tuple):
            for method, function in vars(value).items():
                plain = isinstance(function, FunctionType) and not inspect.isgeneratorfunction(function)
                if plain and not method.startswith("_"):
                    yield Component(function, value, _frame(function, value))


def _frame(function: FunctionType, owner: type | None) -> Frame:
    differentiable = _has_pullback(function)
    return Frame(name_of(owner or function), "forward" if differentiable else "", inherits=owner is not None and not differentiable)


@functools.cache
def name_of(component: Any) -> str:
    """A function or a class by its room and its own name: "ops.linear"."""
    return f"{component.__module__.split('.')[1]}.{component.__name__}"


def _has_pullback(function: FunctionType) -> bool:
    """Whether NumPy's version returns a pullback: its signature says so. PyTorch's is named alike, so that both sides' tables are."""
    try:
        found: Any = importlib.import_module(function.__module__.replace("torch_impl", "numpy_impl", 1))
        for name in function.__qualname__.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):                 # something that PyTorch alone needs
        return False
    return "Callable" in str(getattr(found, "__annotations__", {}).get("return", ""))
