"""MixLoRA in a whole model: experts in the place of every gated feed-forward layer."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.mixlora import MixLoRAConfig
from byhand.configs.routing import RoutingLoss
from numpy_impl.finetune._managed import has_adapters, kind_of, outermost
from numpy_impl.finetune._projections import need_gated
from numpy_impl.finetune.manager import apply_lora
from numpy_impl.finetune.mixlora import MixLoRA
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.moe import MoE


def apply_mixlora(model: Any, config: MixLoRAConfig, *, loader: Callable[[str, int], Mapping[str, NDArray]] | None = None,
                  rng: np.random.Generator | None = None) -> list[str]:
    """Freeze the model, put MixLoRA in the place of every gated feed-forward layer, and let its loss keep the experts balanced.

    Where the config names modules outside those layers, they get LoRA adapters called "default". What has adapters already keeps them, and
    `apply_lora` may add more later: the model is frozen only by the first.

    Parameters
    ----------
    model : Module           changed in place; its `routing_loss` weighs the load-balance loss
    config : MixLoRAConfig
    loader                   for inference: (the layer's dotted name, expert e) -> that expert's arrays by name
    rng                      np.random.Generator of the starts

    Returns
    -------
    names : list of str   of the feed-forward layers, in the model's order

    Raises
    ------
    ValueError   if the model has no gated feed-forward layer or has experts already, adapters stand on one's projections, or a target of
                 the config means nothing or lies within one; nothing has been changed then

    Examples
    --------
    >>> from byhand.configs.llama import LlamaConfig
    >>> from numpy_impl.models.llama import Llama
    >>> model = Llama(LlamaConfig(vocabulary=7, max_length=8, d_model=8, n_layers=1, n_heads=2))
    >>> apply_mixlora(model, MixLoRAConfig(n_experts=2, r=2, attention=("q_proj",)))
    ['blocks.0.mlp']
    >>> [name for name in model.parameters() if "experts.1" not in name and ".up_proj" not in name]   # doctest: +NORMALIZE_WHITESPACE
    ['blocks.0.attn.q_proj.adapters.default.lora_A', 'blocks.0.attn.q_proj.adapters.default.lora_B', 'blocks.0.mlp.router.weight',
     'blocks.0.mlp.experts.0.gate_proj.lora_A', 'blocks.0.mlp.experts.0.gate_proj.lora_B',
     'blocks.0.mlp.experts.0.down_proj.lora_A', 'blocks.0.mlp.experts.0.down_proj.lora_B']
    """
    who = "apply_mixlora"
    demand(who, isinstance(config, MixLoRAConfig), "a MixLoRAConfig", config=config)
    modules = dict(model.modules())
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
        model.freeze()
    for name, base in bases.items():
        own = None if loader is None else functools.partial(loader, name)
        model.replace_child(name, MixLoRA(base, **config.options, loader=own, rng=rng))
    model.routing_loss = RoutingLoss(balance=config.balance)
    return list(bases)
