"""What adapters stand on: the projections of a model, by name."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from byhand.checks import fail
from torch_impl.layers.gated_feed_forward import GatedFeedForward
from torch_impl.layers.linear import Linear
from torch_impl.quantize.linear_4bit import Linear4bit


def projections(model: nn.Module) -> dict[str, nn.Module]:
    """The matrices of a model by dotted name, plain and quantized, but for those that an adapter stands on: its `base`."""
    every = {name: module for name, module in model.named_modules() if isinstance(module, (Linear, Linear4bit))}
    return {name: module for name, module in every.items() if name.rpartition(".")[2] != "base"}


def measure(base: Any) -> tuple[int, int, dict[str, Any]]:
    """(out, in, dtype and device) of a projection, or of the one that the adapters in its place stand on."""
    while hasattr(base, "base"):
        base = base.base
    if isinstance(base, Linear4bit):
        return base.out_features, base.in_features, dict(dtype=base.dtype, device=base.codes.device)
    return *base.weight.shape, dict(dtype=base.weight.dtype, device=base.weight.device)


def need_projection(who: str, base: nn.Module) -> None:
    """Refuse a base that is no projection."""
    if not isinstance(base, (Linear, Linear4bit)):
        fail(who, "a Linear or a Linear4bit as its base", f"a {type(base).__name__}")


def need_gated(who: str, base: Any) -> None:
    """Refuse what is no gated feed-forward layer of plain or 4-bit projections."""
    if not isinstance(base, GatedFeedForward):
        fail(who, "a GatedFeedForward as its base", f"a {type(base).__name__}")
    for projection in (base.gate_proj, base.up_proj, base.down_proj):
        need_projection(who, projection)


def wrap(model: nn.Module, names: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> None:
    """Freeze the model, and put make(name, module) in the place of each of the modules."""
    model.requires_grad_(False)
    for name in names:
        model.set_submodule(name, make(name, model.get_submodule(name)))
