"""What a model's loss adds so that its routers use all experts, and keep their logits small."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.routing import RoutingLoss
from numpy_impl.layers._routed import Routes
from numpy_impl.losses.z_loss import z_loss
from numpy_impl.moe.load_balance import load_balance
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.softmax import softmax


def routing_loss(routes: Routes, config: RoutingLoss, *, real: NDArray | None = None) -> tuple[NDArray, Callable]:
    """loss = Σ_layers (balance · load_balance + z · z_loss);  jointly: as of one layer that saw the tokens of all.

    routes, of which there is one at least; real (...) booleans, which tokens are no padding; backward: dloss () -> a dlogits for each.
    """
    real = np.ones(routes[0].chosen.shape[:-1], bool) if real is None else real
    if not config.jointly:
        losses, pullbacks = zip(*(_loss(one.logits, one.chosen, config, real) for one in routes), strict=True)
        return np.asarray(sum(losses)), lambda dloss: tuple(pullback(dloss) for pullback in pullbacks)
    shapes = {one.logits.shape for one in routes}
    demand("routing_loss", len(shapes) == 1, "as many experts in every layer, to take the layers jointly", shapes=sorted(shapes))
    logits, chosen = np.stack([one.logits for one in routes]), np.stack([one.chosen for one in routes])       # (layers, ..., E)
    loss, backward = _loss(logits, chosen, config, np.broadcast_to(real, logits.shape[:-1]))
    return loss, lambda dloss: tuple(backward(dloss))


def _loss(logits: NDArray, chosen: NDArray, config: RoutingLoss, real: NDArray) -> tuple[NDArray, Callable]:
    """One layer's loss () of logits (..., E); backward: dloss () -> dlogits. Where all is padding, it is 0."""
    scores, score_backward = (softmax if config.score == "softmax" else sigmoid)(logits)
    balance, balance_backward = load_balance(
        scores, chosen=chosen, mask=real, per_sequence=config.per_sequence, renormalise=config.score == "sigmoid"
    )
    z, z_backward = z_loss(logits, mask=real) if config.z and real.any() else (np.zeros((), logits.dtype), None)

    def backward(dloss):
        dlogits = score_backward(balance_backward(config.balance * dloss))
        return dlogits if z_backward is None else dlogits + z_backward(config.z * dloss)

    return config.balance * balance + config.z * z, backward
