"""What a model's loss adds so that its routers use all experts, and keep their logits small."""

import torch
from torch import Tensor

from byhand.checks import demand
from byhand.configs.routing import RoutingLoss
from torch_impl.layers._routed import Routes
from torch_impl.losses.z_loss import z_loss
from torch_impl.moe.load_balance import load_balance


def routing_loss(routes: Routes, config: RoutingLoss, *, real: Tensor | None = None) -> Tensor:
    """Σ_layers (balance · load_balance + z · z_loss);  jointly: as of one layer that saw the tokens of all."""
    if not config.jointly:
        return torch.stack([_loss(one.logits, one.chosen, config, real) for one in routes]).sum()
    shapes = {tuple(one.logits.shape) for one in routes}
    demand("routing_loss", len(shapes) == 1, "as many experts in every layer, to take the layers jointly", shapes=sorted(shapes))
    logits, chosen = torch.stack([one.logits for one in routes]), torch.stack([one.chosen for one in routes])       # (layers, ..., E)
    return _loss(logits, chosen, config, None if real is None else real.expand(logits.shape[:-1]))


def _loss(logits: Tensor, chosen: Tensor, config: RoutingLoss, real: Tensor | None) -> Tensor:
    """One layer's loss () of logits (..., E). Where all is padding, it is 0."""
    scores = logits.softmax(-1) if config.score == "softmax" else logits.sigmoid()
    loss = config.balance * load_balance(
        scores, chosen=chosen, mask=real, per_sequence=config.per_sequence, renormalise=config.score == "sigmoid"
    )
    counted = logits[..., 0].numel() if real is None else int(real.sum())
    return loss + config.z * z_loss(logits, mask=real) if config.z and counted else loss
