"""What adapters stand on: the projections of a model, by name."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from byhand.checks import fail
from torch_impl.layers.linear import Linear


def projections(model: nn.Module) -> dict[str, nn.Module]:
    """The matrices of a model by dotted name, those inside of other adapters too."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def like(base: nn.Module) -> dict[str, Any]:
    """The dtype of the floats that a layer holds, and their device."""
    tensor = next(tensor for tensor in base.state_dict().values() if tensor.is_floating_point())
    return dict(dtype=tensor.dtype, device=tensor.device)


def need_projection(who: str, base: nn.Module) -> None:
    """Refuse a base that is no projection."""
    if not isinstance(base, Linear):
        fail(who, "a Linear as its base", f"a {type(base).__name__}")


def wrap(model: nn.Module, names: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> None:
    """Freeze the model, and put make(name, module) in the place of each of the modules."""
    model.requires_grad_(False)
    for name in names:
        model.set_submodule(name, make(name, model.get_submodule(name)))
