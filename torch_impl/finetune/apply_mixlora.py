"""MixLoRA in a whole model: experts in the place of every gated feed-forward layer."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from byhand.checks import demand
from byhand.configs.mixlora import MixLoRAConfig
from byhand.configs.routing import RoutingLoss
from torch_impl.finetune._managed import has_adapters, kind_of, outermost
from torch_impl.finetune._projections import need_gated
from torch_impl.finetune.manager import apply_lora
from torch_impl.finetune.mixlora import MixLoRA
from torch_impl.layers.gated_feed_forward import GatedFeedForward
from torch_impl.layers.moe import MoE


def apply_mixlora(model: nn.Module, config: MixLoRAConfig, *, loader: Callable[[str, int], Mapping[str, Any]] | None = None,
                  rng: torch.Generator | None = None) -> list[str]:
    """Freeze the model, put MixLoRA in the place of every gated feed-forward layer, and let its loss keep the experts balanced.

    Returns the names of the layers; see the NumPy side.
    """
    who = "apply_mixlora"
    demand(who, isinstance(config, MixLoRAConfig), "a MixLoRAConfig", config=config)
    modules = {name: module for name, module in model.named_modules() if name}
    routers = [name for name, module in modules.items() if isinstance(module, (MixLoRA, MoE))]
    demand(who, not routers, "a model whose feed-forward layers have no experts", experts=routers)
    bases = {name: module for name, module in modules.items() if isinstance(module, GatedFeedForward)}
    demand(who, bool(bases), "a model with gated feed-forward layers, a Llama for one", model=type(model).__name__)
    for base in bases.values():
        need_gated(who, base)
    if config.lora is not None:
        targets = config.lora.select({place: kind_of(module) for place, module in outermost(model)}, function=who)
        inside = [place for place in targets if place.rpartition(".")[0] in bases]
        demand(who, not inside, "attention targets outside the feed-forward layers, which have experts", inside=inside)
        apply_lora(model, config.lora, rng=rng)
    elif not has_adapters(model):
        model.requires_grad_(False)
    for name, base in bases.items():
        own = None if loader is None else functools.partial(loader, name)
        model.set_submodule(name, MixLoRA(base, **config.options, loader=own, rng=rng))
    model.routing_loss = RoutingLoss(balance=config.balance)
    return list(bases)
