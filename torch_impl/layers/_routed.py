"""What layers tell of the routers in them."""

from typing import Any, NamedTuple

from torch import Tensor, nn


class Routing(NamedTuple):
    """What one router did with each token: logits (..., E), chosen (..., E) and, of those, kept (..., E)."""

    logits: Tensor
    chosen: Tensor
    kept: Tensor


Routes = tuple[Routing, ...]


def routed(module: nn.Module, x: Tensor, *shared: Tensor | None, real: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Routes]:
    """module(x), and what the routers in it did. A module without routers is called as ever, so that hooks on it still see the call."""
    if routes(module):
        return module.routed(x, *shared, real=real, **inputs)
    return module(x, *shared, **inputs), ()


def telling(module: nn.Module, found: list[Routing], x: Tensor, **inputs: Any) -> Tensor:
    """As `routed`, with what the routers did added to the list."""
    y, own = routed(module, x, **inputs)
    found.extend(own)
    return y


def routes(module: nn.Module) -> bool:
    """Whether there is a router in it."""
    return hasattr(module, "routed") and getattr(module, "routes", True)
