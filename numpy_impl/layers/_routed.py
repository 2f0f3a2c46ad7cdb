"""What layers tell of the routers in them, and how the cotangents of what was told reach those."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from numpy_impl.layers.module import Module


class Routing(NamedTuple):
    """What one router did with each token.

    logits (..., E)   its scores, before softmax or sigmoid
    chosen (..., E)   booleans: which experts it wanted for the token; none where that is padding
    kept (..., E)     booleans: which of those computed it; the others had no room
    """

    logits: NDArray
    chosen: NDArray
    kept: NDArray


Routes = tuple[Routing, ...]


def routed(module: Module, x: NDArray, *shared: NDArray | None, real: NDArray | None = None,
           **inputs: Any) -> tuple[NDArray, Routes, Callable]:
    """module(x), and what the routers in it did; backward: dy, dlogits -> dx, *dshared, grads.

    dlogits are the cotangents of the logits, one array for each Routing in order, or () where nothing was made of them. A module without
    a method of this name has no router; only routers care which tokens are `real`, that is, no padding.
    """
    if hasattr(module, "routed"):
        return module.routed(x, *shared, real=real, **inputs)
    y, module_backward = module.forward(x, *shared, **inputs)

    def backward(dy: NDArray, dlogits: Sequence[NDArray] = ()) -> Any:
        return module_backward(dy)

    return y, (), backward


def telling(module: Module, routes: list[Routing], x: NDArray, **inputs: Any) -> tuple[NDArray, Callable]:
    """As `routed`, with what the routers did added to the list: a branch of a block, which has one output and one backward."""
    y, found, backward = routed(module, x, **inputs)
    routes.extend(found)
    return y, backward
