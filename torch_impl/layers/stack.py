"""A list of layers run one after the other, in the three ways there are."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from byhand.checks import choice, demand
from byhand.noise import Noise, at
from torch_impl.layers._routed import Routes, routed

Run = Literal["keep", "recompute", "inference"]


class Stack(nn.ModuleList):
    """y = layer_n(… layer_2(layer_1(x))).

    layers : list of nn.Module, each x, *shared -> y. `run` is what the forward leaves behind: ``"keep"`` every saved tensor,
    ``"recompute"`` each layer's input only (gradient checkpointing), ``"inference"`` nothing. `shared` and keyword inputs go to every
    layer.
    """

    def __init__(self, layers: list[nn.Module]):
        super().__init__(layers)

    def forward(self, x: Tensor, *shared: Tensor | None, noise: Noise | None = None, run: Run = "keep",
                caches: Sequence[Any] | None = None, **inputs: Any) -> Tensor:
        return self.routed(x, *shared, noise=noise, run=run, caches=caches, **inputs)[0]

    def routed(self, x: Tensor, *shared: Tensor | None, noise: Noise | None = None, run: Run = "keep",
               caches: Sequence[Any] | None = None, **inputs: Any) -> tuple[Tensor, Routes]:
        """x, *shared -> y, and what the routers of all layers did."""
        choice("Stack", ("keep", "recompute", "inference"), run=run)
        if caches is not None:
            demand("Stack", run == "inference", "run='inference' with caches", run=run)
            demand("Stack", len(caches) == len(self), f"{len(self)} caches, one a layer", caches=len(caches))
        with torch.set_grad_enabled(torch.is_grad_enabled() and run != "inference"):
            routes: Routes = ()
            for i, layer in enumerate(self):
                stream = at(noise, str(i))
                own_inputs = inputs if caches is None else inputs | {"cache": caches[i]}
                if run == "recompute":  # masks come from `noise`, so no global random state needs restoring
                    x, own = checkpoint(routed, layer, x, *shared, noise=stream, use_reentrant=False, preserve_rng_state=False, **inputs)
                else:
                    x, own = routed(layer, x, *shared, noise=stream, **own_inputs)
                routes += own
        return x, routes
