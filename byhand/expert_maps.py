"""Which expert computed which token of a text, layer by layer: what `byhand draw experts` draws."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.routing_metrics import routing_layers
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.softmax import softmax


class ExpertMap(NamedTuple):
    """What one layer's router did with a text of T tokens.

    layer           the layer's dotted name
    weights (E, T)  what the router weighs each chosen expert's output with, before any common `scale`; 0 where it was not chosen
    chosen (E, T)   booleans: the experts that were wanted for a token
    kept (E, T)     booleans: those of them that had room for it
    """

    layer: str
    weights: NDArray
    chosen: NDArray
    kept: NDArray


def expert_maps(model: Any, ids: NDArray) -> list[ExpertMap]:
    """The map of every layer of a causal model of the NumPy side that routes, on one text, ids (T,).

    Raises
    ------
    ValueError   if no layer of the model routes

    Examples
    --------
    >>> from byhand.configs.mixtral import MixtralConfig
    >>> from numpy_impl.models.mixtral import Mixtral
    >>> config = MixtralConfig(vocabulary=7, max_length=8, d_model=8, n_layers=1, n_heads=2, d_hidden=6, n_experts=4, k=2)
    >>> (found,) = expert_maps(Mixtral(config, rng=np.random.default_rng(0)), np.array([1, 2, 3]))
    >>> found.layer, found.weights.shape, found.weights.sum(0).round(4)
    ('blocks.0.mlp', (4, 3), array([1., 1., 1.], dtype=float32))
    """
    layers = routing_layers(model) if hasattr(model, "watch") else {}
    demand("expert_maps", bool(layers), "a causal model with experts", model=type(model).__name__)
    seen: list[Any] = []
    before, model.watch = model.watch, seen.extend
    try:
        model.loss(ids[None], ids[None])                   # training is watched; the loss itself is of no interest
    finally:
        model.watch = before
    return [_map(name, layer, routing) for (name, layer), routing in zip(layers.items(), seen, strict=True)]


def _map(name: str, layer: Any, routing: Any) -> ExpertMap:
    options = getattr(layer.router, "options", {"renormalise": getattr(layer, "renormalise", False)})     # of a Router, or of MixLoRA
    score = softmax if options.get("score", "softmax") == "softmax" else sigmoid
    weights = np.where(routing.chosen[0], score(routing.logits[0])[0], 0)
    if options["renormalise"] or (score is softmax and not options.get("before", True)):     # a softmax of some is theirs of all, made to
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-20)                         # sum to 1
    return ExpertMap(name, weights.T, routing.chosen[0].T, routing.kept[0].T)
