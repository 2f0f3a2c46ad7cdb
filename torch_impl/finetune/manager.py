"""Adapters of a whole model, by the names of its modules: put on, trained, merged, kept, taken off again."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from byhand.checks import demand, floats, same_names, same_shape
from byhand.configs.lora import LoRAConfig
from torch_impl.finetune._adapted import _Adapted
from torch_impl.finetune._managed import (
    WRAPPERS,
    adapted_modules,
    add,
    arrays_of,
    check_apply,
    check_finite,
    check_merge,
    check_switch,
    has_adapters,
    kind_of,
    outermost,
    own,
    tied_tables,
    trained_biases,
)


def apply_lora(model: nn.Module, config: LoRAConfig, *, name: str = "default", rng: torch.Generator | None = None) -> list[str]:
    """Freeze the model, and put an adapter on every module that the config means; returns their names. See the NumPy side."""
    who = "apply_lora"
    demand(who, isinstance(config, LoRAConfig), "a LoRAConfig", config=config)
    demand(who, isinstance(name, str) and name != "" and "." not in name, "a name for the adapter, without a dot", name=name)
    modules = dict(outermost(model))
    chosen = config.select({place: kind_of(module) for place, module in modules.items()}, function=who)
    for place in chosen:
        check_apply(who, place, modules[place], config, name)

    if not has_adapters(model):
        model.requires_grad_(False)
    for place in chosen:
        module = modules[place]
        if not isinstance(module, _Adapted):
            module = WRAPPERS[kind_of(module)](module, r=None, alpha=config.alpha)
            model.set_submodule(place, module)
        add(module, name, config, place, rng)
    biases = {f"{place}.base.bias" for place in chosen}
    for key, parameter in model.named_parameters():
        if key in biases if config.bias == "lora_only" else config.bias == "all" and key.split(".")[-1] == "bias":
            parameter.requires_grad_(True)
    return chosen


def merge_lora(model: nn.Module, *names: str) -> None:
    """W ← W + s · B A  in every module, for the adapters of these names, or without names for those that are active."""
    who = "merge_lora"
    adapted = adapted_modules(who, model, names)
    chosen = {place: own(module, names) if names else module.active for place, module in adapted.items()}
    demand(who, any(chosen.values()), "an active adapter, or the name of one", names=names)
    for place, module in adapted.items():
        check_merge(who, place, module, chosen[place])
    for place, module in adapted.items():
        if chosen[place]:
            module.merge(*chosen[place])


def unmerge_lora(model: nn.Module) -> None:
    """Put back every weight as it was before anything was merged, bit by bit."""
    who = "unmerge_lora"
    merged = [module for module in adapted_modules(who, model).values() if module.merged]
    demand(who, bool(merged), "a model with merged adapters", merged=0)
    for module in merged:
        module.unmerge()


def enable_adapters(model: nn.Module, *names: str) -> None:
    """Let exactly the adapters of these names count, without names all: the others neither contribute nor train."""
    who = "enable_adapters"
    adapted = adapted_modules(who, model, names)
    active = {place: own(module, names or module.adapters) for place, module in adapted.items()}
    check_switch(who, adapted, active)
    for place, module in adapted.items():
        if active[place]:
            module.enable(*active[place])
        else:
            module.disable()


def disable_adapters(model: nn.Module) -> None:
    """Let no adapter count: the model computes what it did before, but for biases that were trained."""
    who = "disable_adapters"
    adapted = adapted_modules(who, model)
    check_switch(who, adapted, dict.fromkeys(adapted, ()))
    for module in adapted.values():
        module.disable()


def remove_adapter(model: nn.Module, name: str) -> None:
    """Forget the adapter of this name in every module; a module without any other is the plain one again, and stays frozen."""
    who = "remove_adapter"
    adapted = {place: module for place, module in adapted_modules(who, model, (name,)).items() if name in module.adapters}
    check_switch(who, adapted, {place: tuple(other for other in module.adapters if other != name) for place, module in adapted.items()})
    for place, module in adapted.items():
        module.remove(name)
        if not module.adapters:
            model.set_submodule(place, module.base)


def merge_and_unload(model: nn.Module) -> list[str]:
    """Plain layers again, with the weights W + s · B A of the adapters that count; the others are forgotten."""
    who = "merge_and_unload"
    adapted = adapted_modules(who, model)
    tied = tied_tables(model)
    for place, module in adapted.items():
        demand(who, place not in tied or not module.active,
               f"a head of its own beside adapters on {place}: tied to that table, it reads it without them, and would read it with them "
               "merged (disable or remove them, or keep the model adapted)", active=module.active)
        check_merge(who, place, module, (name for name in module.active if name not in module.merged))
    for place, module in adapted.items():
        model.set_submodule(place, module.folded())
    return list(adapted)


def adapter_state(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """The tensors of an adapter by the module's dotted name, ``blocks.0.attn.q_proj.lora_A`` …, and every bias that trains.

    They share memory with the model's, and have no graph.
    """
    return {
        f"{place}.{array}": value for place, module in adapted_modules("adapter_state", model, (name,)).items() if name in module.adapters
        for array, value in arrays_of(module.adapters[name]).items()
    } | trained_biases(model)


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor], name: str = "default") -> None:
    """Copy what `adapter_state` gave into place, cast to the adapters' dtypes."""
    who, arrays = "load_adapter_state", adapter_state(model, name)
    for place, module in adapted_modules(who, model, (name,)).items():
        demand(who, name not in module.merged, f"what is merged in {place} to be unmerged first", merged=module.merged)
    same_names(who, arrays, state=state)
    for key, array in arrays.items():
        floats(who, **{f"state[{key!r}]": state[key]})
        same_shape(who, array.shape, **{f"state[{key!r}]": state[key]})
    cast = {key: state[key].to(array.dtype) for key, array in arrays.items()}
    check_finite(who, "the state", cast)
    for key, array in arrays.items():
        array.copy_(cast[key])
