"""What adapters stand on: the projections of a model by name, and layers around a frozen one."""

from collections.abc import Callable, Iterable

from numpy.typing import DTypeLike

from byhand.checks import fail
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module


class OnFrozen(Module):
    """A layer around a frozen one, its `base`: `unfreeze` thaws the base only for a pattern that names it, such as ``"*.base.bias"``."""

    def __init__(self, base: Module):
        self.base = base.freeze()

    def _set_frozen(self, patterns: tuple[str, ...], frozen: bool, prefix: str) -> Module:
        base, vars(self)["base"] = self.base, None                       # the walk below does not see it
        super()._set_frozen(patterns, frozen, prefix)
        self.base = base
        base._set_frozen(tuple(p for p in patterns if frozen or "base" in p), frozen, f"{prefix}base.")
        return self


def projections(model: Module) -> dict[str, Module]:
    """The matrices of a model by dotted name, those inside of other adapters too."""
    return {name: module for name, module in model.modules() if isinstance(module, Linear)}


def dtype_of(base: Module) -> DTypeLike:
    """The dtype of the floats that a layer holds."""
    return next(array.dtype for array in base.state_dict().values() if array.dtype.kind == "f")


def need_projection(who: str, base: Module) -> None:
    """Refuse a base that is no projection."""
    if not isinstance(base, Linear):
        fail(who, "a Linear as its base", f"a {type(base).__name__}")


def wrap(model: Module, names: Iterable[str], make: Callable[[str, Module], Module]) -> None:
    """Freeze the model, and put make(name, module) in the place of each of the modules."""
    model.freeze()
    modules = dict(model.modules())
    for name in names:
        model.replace_child(name, make(name, modules[name]))
