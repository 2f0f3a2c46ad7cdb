"""Balance without a loss: what moves the corrections of routers after every update."""

from typing import Any

from numpy.typing import NDArray

from byhand.routing_metrics import RoutingWatch


class Balanced:
    """An optimizer of either side that, after each step, moves every router's `correction` by `rate` towards an even load.

    optimizer : whose steps they are
    watch : what counts, during the update, how many tokens chose each expert
    rate : of `moe.balance_bias`; at 0 the corrections stay where they are; None becomes 0.001, DeepSeek-V3's

    A model without corrections is not touched.
    """

    def __init__(self, optimizer: Any, watch: RoutingWatch, rate: float | None):
        self._optimizer, self._watch, self._rate = optimizer, watch, 1e-3 if rate is None else rate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self, grads: Any, *, lr: float | None = None) -> None:
        """The optimizer's step, and then the corrections'."""
        self._optimizer.step(grads, lr=lr)
        for layer, counts in zip(self._watch.layers.values(), self._watch.counts, strict=True):
            correction = getattr(layer.router, "correction", None)
            if correction is not None:
                _move(correction, counts, self._rate)


def _move(correction: Any, counts: NDArray, rate: float) -> None:
    """In place, so that the model's state holds it."""
    if hasattr(correction, "detach"):
        import torch

        from torch_impl.moe.balance_bias import balance_bias

        with torch.no_grad():
            correction.copy_(balance_bias(correction, counts=torch.from_numpy(counts).to(correction.device), rate=rate))
    else:
        from numpy_impl.moe.balance_bias import balance_bias as by_hand

        correction[...] = by_hand(correction, counts=counts, rate=rate)
