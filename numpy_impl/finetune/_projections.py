"""What adapters stand on: the projections of a model by name, and layers around a frozen one."""

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import DTypeLike

from byhand.checks import fail
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.quantize.linear_4bit import Linear4bit


class OnFrozen(Module):
    """A layer around a frozen one, its `base`: `unfreeze` thaws the base only for a pattern that names it, such as ``"*.base.bias"``."""

    base: Any

    def __init__(self, base: Module):
        self.base = base.freeze()

    def _set_frozen(self, patterns: tuple[str, ...], frozen: bool, prefix: str) -> Module:
        base, vars(self)["base"] = self.base, None                       # the walk below does not see it
        super()._set_frozen(patterns, frozen, prefix)
        self.base = base
        base._set_frozen(tuple(p for p in patterns if frozen or "base" in p), frozen, f"{prefix}base.")
        return self


def projections(model: Module) -> dict[str, Module]:
    """The matrices of a model by dotted name, plain and quantized, but for those that an adapter stands on: its `base`."""
    every = {name: module for name, module in model.modules() if isinstance(module, (Linear, Linear4bit))}
    return {name: module for name, module in every.items() if name.rpartition(".")[2] != "base"}


def measure(base: Any) -> tuple[int, int, DTypeLike]:
    """(out, in, dtype) of a projection, or of the one that the adapters in its place stand on."""
    while hasattr(base, "base"):
        base = base.base
    if isinstance(base, Linear4bit):
        return base.out_features, base.in_features, base.dtype
    return *base.weight.shape, base.weight.dtype


def need_projection(who: str, base: Module) -> None:
    """Refuse a base that is no projection."""
    if not isinstance(base, (Linear, Linear4bit)):
        fail(who, "a Linear or a Linear4bit as its base", f"a {type(base).__name__}")


def need_gated(who: str, base: Any) -> None:
    """Refuse what is no gated feed-forward layer of plain or 4-bit projections."""
    if not isinstance(base, GatedFeedForward):
        fail(who, "a GatedFeedForward as its base", f"a {type(base).__name__}")
    for projection in (base.gate_proj, base.up_proj, base.down_proj):
        need_projection(who, projection)


def wrap(model: Module, names: Iterable[str], make: Callable[[str, Module], Module]) -> None:
    """Freeze the model, and put make(name, module) in the place of each of the modules."""
    model.freeze()
    modules = dict(model.modules())
    for name in names:
        model.replace_child(name, make(name, modules[name]))
