"""What the manager of adapters stands on: the modules of a model by name, and what must hold before anything is changed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.lora import LoRAConfig
from numpy_impl.finetune._adapted import Adapter, _Adapted
from numpy_impl.finetune._expert import Expert
from numpy_impl.finetune.lora import lora_scaling
from numpy_impl.finetune.lora_conv import LoRAConv1d, LoRAConv2d
from numpy_impl.finetune.lora_embedding import LoRAEmbedding
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.finetune.starts import loftq, olora, pissa
from numpy_impl.layers.module import Module
from numpy_impl.quantize.linear_4bit import Linear4bit

WRAPPERS = {"Linear": LoRALinear, "Linear4bit": LoRALinear, "Embedding": LoRAEmbedding, "Conv1d": LoRAConv1d, "Conv2d": LoRAConv2d}
_STARTS = {"pissa": pissa, "olora": olora, "loftq": loftq}       # those that change the base as well
_ARRAYS = ("lora_A", "lora_B", "magnitude")


def outermost(model: Module) -> Iterator[tuple[str, Module]]:
    """(dotted name, module) of everything below the model; an adapted module stands for what it wraps."""
    inside = None
    for place, module in model.modules():
        if inside is None or not place.startswith(inside):
            inside = f"{place}." if isinstance(module, _Adapted) else None
            yield place, module


def has_adapters(model: Module) -> bool:
    """Whether something in the model trains beside it: adapters of any name, or the experts of MixLoRA."""
    return any(isinstance(module, (_Adapted, Expert)) for _, module in outermost(model))


def adapted_modules(who: str, model: Module, names: Iterable[str] = ()) -> dict[str, _Adapted]:
    """The modules that have adapters, of which there is one at least, and one of each of these names, each said once."""
    found = {place: module for place, module in outermost(model) if isinstance(module, _Adapted)}
    demand(who, bool(found), "a model with adapters", model=type(model).__name__)
    known = list(dict.fromkeys(name for module in found.values() for name in module.adapters))
    names = tuple(names)
    for name in names:
        choice(who, known, adapter=name)
    demand(who, len(set(names)) == len(names), "every name once", names=names)
    return found


def tied_tables(model: Module) -> set[str]:
    """Where the tables lie that a head reads as well, because it has no matrix of its own."""
    found = set()
    for place, module in [("", model), *model.modules()]:
        if hasattr(module, "tied_table") and getattr(module, "head", None) is None:
            found.add(f"{place}.{module.tied_table}" if place else module.tied_table)
    return found


def kind_of(module: Module) -> str:
    """The class of a module, or of what its adapters stand on: ours by its name, any other with where it comes from."""
    kind = type(module._original if isinstance(module, _Adapted) else module)
    return kind.__name__ if kind.__module__.startswith("numpy_impl.") else f"{kind.__module__}.{kind.__name__}"


def own(module: _Adapted, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that the module has adapters of."""
    return tuple(name for name in names if name in module.adapters)


def arrays_of(adapter: Adapter) -> dict[str, NDArray]:
    """lora_A, lora_B and, with DoRA, magnitude."""
    return {name: getattr(adapter, name) for name in _ARRAYS if getattr(adapter, name) is not None}


def trained_biases(model: Module) -> dict[str, NDArray]:
    """Every bias that trains, by the name it has where there are no adapters."""
    found = {}
    for place, module in [("", model), *outermost(model)]:
        holder: Any = module._original if isinstance(module, _Adapted) else module
        if holder.trains("bias"):
            found[f"{place}.bias" if place else "bias"] = holder.bias
    return found


def add(module: _Adapted, name: str, config: LoRAConfig, place: str, rng: np.random.Generator | None) -> None:
    """One more adapter on a module; with some starts, a base that keeps only what the adapter does not hold."""
    options = config.options(place)
    if config.start in ("kaiming", "gaussian"):
        module.add(name, **options, start=config.start, rng=rng)
        return
    base, scaling = module.base, lora_scaling(options["r"], options["alpha"], rslora=options["rslora"])
    begin = _STARTS[config.start](base.weight, r=options["r"], scaling=scaling)
    module.base = module._stand_in(begin.weight)
    if config.start == "loftq":                        # as `loftq` did: NF4, blocks of 64
        module.base = Linear4bit.from_linear(module.base).freeze()
    elif isinstance(base, Linear4bit):
        module.base = Linear4bit.from_linear(module.base, kind=base.kind, block=base.block, double=base.double).freeze()
    module.add(name, **options, rng=rng)
    adapter = module.adapters[name]
    adapter.lora_A[...], adapter.lora_B[...] = begin.lora_A, begin.lora_B
    adapter.start = (config.start, begin.lora_A, begin.lora_B)
    if adapter.magnitude is not None:
        adapter.magnitude[...] = module._norms(adapter)              # the rows of base + s · B A, which only now are those of W


def check_apply(who: str, place: str, module: Any, config: LoRAConfig, name: str) -> None:
    """Fail unless this module can get an adapter of this name as the config wants it."""
    kind, groups, r = kind_of(module), _groups(module), config.rank(place)
    demand(who, r % groups == 0, f"a rank that the groups of {place} divide", r=r, groups=groups)
    demand(who, not config.dora or groups == 1, f"dora=False for {place}, whose groups A mixes", groups=groups)
    if isinstance(module, _Adapted):
        demand(who, name not in module.adapters, f"a name that {place} has no adapter of", name=name)
        demand(who, not module.merged, f"what is merged in {place} to be unmerged first", merged=module.merged)
    if config.start in _STARTS:
        kinds = ("Linear",) if config.start == "loftq" else ("Linear", "Linear4bit")
        demand(who, kind in kinds and not isinstance(module, _Adapted),
               f"{' or '.join(kinds)} without adapters to start as {config.start!r}", **{place: type(module).__name__})
        check_finite(who, place, {"weight": module.weight})


def check_merge(who: str, place: str, module: _Adapted, names: Iterable[str]) -> None:
    """Fail unless these adapters can be added to the weight."""
    for name in names:
        demand(who, name not in module.merged, f"adapters that are not merged yet in {place}", name=name)
        demand(who, _groups(module) == 1, f"no adapter on {place}, whose groups A mixes", groups=_groups(module))
        check_finite(who, f"{place}'s adapter {name!r}", arrays_of(module.adapters[name]))


def check_switch(who: str, adapted: Mapping[str, _Adapted], active: Mapping[str, tuple[str, ...]]) -> None:
    """Fail unless nothing is merged, and every adapter stays active that took a part of its base with it."""
    for place, module in adapted.items():
        demand(who, not module.merged, f"what is merged in {place} to be unmerged first", merged=module.merged)
        for name, adapter in module.adapters.items():
            if adapter.start is not None and name not in active[place]:
                demand(who, False, f"{name!r} to stay on in {place}, whose base is only a rest without it", start=adapter.start[0])


def check_finite(who: str, what: str, arrays: Mapping[str, NDArray]) -> None:
    """Fail unless every number is finite."""
    for name, array in arrays.items():
        demand(who, bool(np.isfinite(array).all()), f"finite numbers in {what}", **{name: array})


def _groups(module: Module) -> int:
    return getattr(module._original if isinstance(module, _Adapted) else module, "groups", 1)
