"""Adapters of a whole model, by the names of its modules: put on, trained, merged, kept, taken off again."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, floats, same_names, same_shape
from byhand.configs.lora import LoRAConfig
from numpy_impl.finetune._adapted import _Adapted
from numpy_impl.finetune._managed import (
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
from numpy_impl.layers.module import Module


def apply_lora(model: Module, config: LoRAConfig, *, name: str = "default", rng: np.random.Generator | None = None) -> list[str]:
    """Freeze the model, and put an adapter on every module that the config means: y = base(x) + s · B A x.

    A module that has adapters already gets another one beside them, active like them; the model is frozen only by the first config.

    Parameters
    ----------
    model : Module        changed in place
    config : LoRAConfig   which modules, which ranks; `bias` says which biases train besides ("all" of the model's, "lora_only": those of
                          the modules chosen)
    name : str            of the adapter, without a dot
    rng                   np.random.Generator of the starts

    The starts "pissa", "olora" and "loftq" are for affine layers without adapters, and they change the base: it keeps what the adapter does
    not hold, so that both together are what the base was. "loftq" quantizes its layers, to NF4 with blocks of 64; a base that is quantized
    already is quantized again by the others, with its own options.

    Returns
    -------
    names : list of str   the modules that got the adapter, in the model's order

    Raises
    ------
    ValueError   if a target means nothing (near names are listed), the name is taken, something is merged, or a start cannot be made of a
                 weight (it is not finite, say); nothing has been changed then

    Examples
    --------
    >>> from byhand.configs.llama import LlamaConfig
    >>> from numpy_impl.models.llama import Llama
    >>> model = Llama(LlamaConfig(vocabulary=7, max_length=8, d_model=8, n_layers=1, n_heads=2))
    >>> apply_lora(model, LoRAConfig(r=2, targets=["q_proj", "v_proj"]))
    ['blocks.0.attn.q_proj', 'blocks.0.attn.v_proj']
    >>> [name for name in model.parameters() if "q_proj" in name]
    ['blocks.0.attn.q_proj.adapters.default.lora_A', 'blocks.0.attn.q_proj.adapters.default.lora_B']
    >>> load_adapter_state(model, {name: np.ones_like(array) for name, array in adapter_state(model).items()})
    >>> adapted = model(np.array([[1, 2, 3]]))
    >>> merge_and_unload(model)
    ['blocks.0.attn.q_proj', 'blocks.0.attn.v_proj']
    >>> bool(np.allclose(model(np.array([[1, 2, 3]])), adapted, atol=1e-6)), type(model.blocks.layers[0].attn.q_proj).__name__
    (True, 'Linear')
    """
    who = "apply_lora"
    demand(who, isinstance(config, LoRAConfig), "a LoRAConfig", config=config)
    demand(who, isinstance(name, str) and name != "" and "." not in name, "a name for the adapter, without a dot", name=name)
    modules = dict(outermost(model))
    chosen = config.select({place: kind_of(module) for place, module in modules.items()}, function=who)
    for place in chosen:
        check_apply(who, place, modules[place], config, name)

    if not has_adapters(model):
        model.freeze()
    for place in chosen:
        module = modules[place]
        if not isinstance(module, _Adapted):
            module = WRAPPERS[kind_of(module)](module, r=None, alpha=config.alpha)
            model.replace_child(place, module)
        add(module, name, config, place, rng)
    if config.bias == "all":
        for module in [model, *dict(model.modules()).values()]:          # one by one: what stands around a base does not pass on "*.bias"
            module.unfreeze("bias")
    elif config.bias == "lora_only":
        model.unfreeze(*(f"{place}.base.bias" for place in chosen))
    return chosen


def merge_lora(model: Module, *names: str) -> None:
    """W ← W + s · B A  in every module, for the adapters of these names, or without names for those that are active.

    Raises
    ------
    ValueError   if there is nothing to merge, a name is unknown or merged already, or an adapter is not finite; nothing has been
                 changed then
    """
    who = "merge_lora"
    adapted = adapted_modules(who, model, names)
    chosen = {place: own(module, names) if names else module.active for place, module in adapted.items()}
    demand(who, any(chosen.values()), "an active adapter, or the name of one", names=names)
    for place, module in adapted.items():
        check_merge(who, place, module, chosen[place])
    for place, module in adapted.items():
        if chosen[place]:
            module.merge(*chosen[place])


def unmerge_lora(model: Module) -> None:
    """Put back every weight as it was before anything was merged, bit by bit.

    Raises
    ------
    ValueError   if nothing is merged
    """
    who = "unmerge_lora"
    merged = [module for module in adapted_modules(who, model).values() if module.merged]
    demand(who, bool(merged), "a model with merged adapters", merged=0)
    for module in merged:
        module.unmerge()


def enable_adapters(model: Module, *names: str) -> None:
    """Let exactly the adapters of these names count, without names all: the others neither contribute nor train.

    Raises
    ------
    ValueError   if a name is unknown, something is merged, or an adapter would be off without which its base is not the model's own weight
                 (see `apply_lora` about starts); nothing has been changed then
    """
    who = "enable_adapters"
    adapted = adapted_modules(who, model, names)
    active = {place: own(module, names or module.adapters) for place, module in adapted.items()}
    check_switch(who, adapted, active)
    for place, module in adapted.items():
        if active[place]:
            module.enable(*active[place])
        else:
            module.disable()


def disable_adapters(model: Module) -> None:
    """Let no adapter count: the model computes what it did before, but for biases that were trained.

    Raises
    ------
    ValueError   if there are no adapters, something is merged, or a base is not the model's own weight without its adapter (see
                 `apply_lora` about starts); nothing has been changed then
    """
    who = "disable_adapters"
    adapted = adapted_modules(who, model)
    check_switch(who, adapted, dict.fromkeys(adapted, ()))
    for module in adapted.values():
        module.disable()


def remove_adapter(model: Module, name: str) -> None:
    """Forget the adapter of this name in every module; a module without any other is the plain one again, and stays frozen.

    Raises
    ------
    ValueError   as `disable_adapters`, and if the name is unknown; nothing has been changed then
    """
    who = "remove_adapter"
    adapted = {place: module for place, module in adapted_modules(who, model, (name,)).items() if name in module.adapters}
    check_switch(who, adapted, {place: tuple(other for other in module.adapters if other != name) for place, module in adapted.items()})
    for place, module in adapted.items():
        module.remove(name)
        if not module.adapters:
            model.replace_child(place, module.base)


def merge_and_unload(model: Module) -> list[str]:
    """Plain layers again, with the weights W + s · B A of the adapters that count; the others are forgotten.

    Everything stays frozen, but for biases that train; a quantized base becomes a layer in full precision.

    Returns
    -------
    names : list of str   of the modules that had adapters

    Raises
    ------
    ValueError   if there are no adapters, one that counts is not finite, or the head is the table of tokens, which it reads without the
                 adapters that are on it; nothing has been changed then
    """
    who = "merge_and_unload"
    adapted = adapted_modules(who, model)
    tied = tied_tables(model)
    for place, module in adapted.items():
        demand(who, place not in tied or not module.active,
               f"a head of its own beside adapters on {place}: tied to that table, it reads it without them, and would read it with them "
               "merged (disable or remove them, or keep the model adapted)", active=module.active)
        check_merge(who, place, module, (name for name in module.active if name not in module.merged))
    for place, module in adapted.items():
        model.replace_child(place, module.folded())
    return list(adapted)


def adapter_state(model: Module, name: str = "default") -> dict[str, NDArray]:
    """The arrays of an adapter by the module's dotted name, ``blocks.0.attn.q_proj.lora_A`` …, and every bias that trains.

    The live arrays, not copies.

    Raises
    ------
    ValueError   if no module has an adapter of this name
    """
    return {
        f"{place}.{array}": value for place, module in adapted_modules("adapter_state", model, (name,)).items() if name in module.adapters
        for array, value in arrays_of(module.adapters[name]).items()
    } | trained_biases(model)


def load_adapter_state(model: Module, state: Mapping[str, NDArray], name: str = "default") -> None:
    """Copy what `adapter_state` gave into place, cast to the adapters' dtypes.

    Raises
    ------
    ValueError   if the adapter is merged or unknown, or the state is not its own: a name is missing or unknown, a shape differs, a number
                 is not finite (in the adapter's dtype); nothing has been changed then
    """
    who, arrays = "load_adapter_state", adapter_state(model, name)
    for place, module in adapted_modules(who, model, (name,)).items():
        demand(who, name not in module.merged, f"what is merged in {place} to be unmerged first", merged=module.merged)
    same_names(who, arrays, state=state)
    for key, array in arrays.items():
        floats(who, **{f"state[{key!r}]": state[key]})
        same_shape(who, array.shape, **{f"state[{key!r}]": state[key]})
    with np.errstate(over="ignore"):
        cast = {key: np.asarray(state[key], array.dtype) for key, array in arrays.items()}
    check_finite(who, "the state", cast)
    for key, array in arrays.items():
        array[...] = cast[key]
