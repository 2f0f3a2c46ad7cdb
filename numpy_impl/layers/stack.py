"""A list of layers run one after the other, in the three ways there are."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.noise import Noise, at
from numpy_impl.layers._routed import Routes, routed
from numpy_impl.layers.module import Module

Run = Literal["keep", "recompute", "inference"]


class Stack(Module):
    """y = layer_n(… layer_2(layer_1(x))).

    Parameters
    ----------
    layers : list of Module, each x, *shared -> y

    `run` chooses what a forward leaves behind for the backward:

    - ``"keep"``: every layer's pullback. Fastest, and holds every intermediate of every layer.
    - ``"recompute"``: only each layer's input; the backward runs each layer's forward again, just before its pullback is needed
      (gradient checkpointing; Chen et al. 2016, arXiv:1604.06174). One more forward, and the memory of one layer plus one input
      a layer. The noise is an argument, so the second forward draws the same masks and the gradients have the same bits.
    - ``"inference"``: nothing; there is no backward.

    Further inputs go to every layer as they are: arrays in `shared` (a context, a bias on the scores), whose gradients are sums over the
    layers; and keyword inputs (a mask, say); `noise` reaches layer i as the stream named i. In inference, caches[i] reaches it as its
    `cache`.

    Examples
    --------
    >>> import numpy as np
    >>> class Double(Module):
    ...     def forward(self, x, *, noise=None):
    ...         return 2 * x, lambda dy: (2 * dy, self.grads())
    >>> y, backward = Stack([Double(), Double()]).forward(np.ones(2), run="recompute")
    >>> dx, grads = backward(np.ones(2))
    >>> y, dx, grads
    (array([4., 4.]), array([4., 4.]), [{}, {}])
    """

    def __init__(self, layers: list[Module]):
        self.layers = list(layers)

    def children(self) -> Iterator[tuple[str, Module]]:
        yield from ((str(i), layer) for i, layer in enumerate(self.layers))

    def _place(self, name: str, module: Module) -> None:
        self.layers[int(name)] = module

    def forward(self, x: NDArray, *shared: NDArray | None, noise: Noise | None = None, run: Run = "keep",
                caches: Sequence[Any] | None = None, **inputs: Any) -> tuple[NDArray, Callable | None]:
        """x, *shared -> y; backward: dy -> dx, *dshared, grads, one a layer (no backward in inference)."""
        y, _, backward = self.routed(x, *shared, noise=noise, run=run, caches=caches, **inputs)
        return y, backward

    def routed(self, x: NDArray, *shared: NDArray | None, noise: Noise | None = None, run: Run = "keep",
               caches: Sequence[Any] | None = None, **inputs: Any) -> tuple[NDArray, Routes, Callable | None]:
        """x, *shared -> y, and what the routers of all layers did; backward: dy, their dlogits -> dx, *dshared, grads, one a layer."""
        choice("Stack", ("keep", "recompute", "inference"), run=run)
        if caches is not None:
            demand("Stack", run == "inference", "run='inference' with caches", run=run)
            demand("Stack", len(caches) == len(self.layers), f"{len(self.layers)} caches, one a layer", caches=len(caches))
        streams = [at(noise, str(i)) for i in range(len(self.layers))]
        trail: list[Any] = []                          # per layer: its pullback, or the input to make it from
        own: list[slice] = []                          # per layer: which of all routers are its own
        routes: Routes = ()
        for i, (layer, stream) in enumerate(zip(self.layers, streams, strict=True)):
            before, own_inputs = x, inputs if caches is None else inputs | {"cache": caches[i]}
            x, found, pullback = routed(layer, before, *shared, noise=stream, **own_inputs)
            trail.append({"keep": pullback, "recompute": before, "inference": None}[run])
            own.append(slice(len(routes), len(routes) + len(found)))
            routes += found
            del before, pullback                       # what the trail does not hold is free before the next layer runs

        def backward(dy, dlogits=()):
            dshared, grads = [None if array is None else np.zeros_like(array) for array in shared], []
            for layer, stream, kept, routers in zip(self.layers[::-1], streams[::-1], trail[::-1], own[::-1], strict=True):
                pullback = kept if run == "keep" else routed(layer, kept, *shared, noise=stream, **inputs)[2]
                dy, *dothers, layer_grads = pullback(dy, dlogits[routers])
                for total, dother in zip(dshared, dothers, strict=False):      # optional inputs that are not shared have no total
                    if total is not None:
                        total += dother
                grads.append(layer_grads)
            return dy, *dshared, grads[::-1]

        return x, routes, (None if run == "inference" else backward)
