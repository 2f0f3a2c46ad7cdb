"""Between the adapters of our models and those in peft's files: their arrays by name, and their options."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, same_names, same_shape
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face.adapter_places import (
    Adapter,
    Config,
    Place,
    biases,
    joined,
    joined_alpha,
    joined_bias,
    pattern,
    places,
    shortest,
    split,
)
from byhand.hugging_face.peft_config import from_peft_options, peft_modules, peft_options, peft_rank, to_peft_options

_PREFIX = "base_model.model."
_PARTS = {"lora_A.weight": "lora_A", "lora_B.weight": "lora_B", "lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B",
          "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude"}
_FAMILY_PREFIXES = ("model.", "transformer.", "lm_head.")


def adapter_to_peft(config: LoRAConfig, model_config: Config, state: Mapping[str, NDArray], *, base_name: str | None = None,
                    base: Mapping[str, NDArray] | None = None) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """What adapter_config.json and adapter_model.safetensors hold of an adapter; `save_adapter` explains the arguments and refusals.

    Examples
    --------
    >>> model = GPT2Config(vocabulary=7, max_length=8, d_model=4, n_layers=1, n_heads=2)
    >>> state = {"blocks.0.attn.o_proj.lora_A": np.ones((2, 4)), "blocks.0.attn.o_proj.lora_B": np.zeros((4, 2))}
    >>> values, arrays = adapter_to_peft(LoRAConfig(r=2, targets=("o_proj",)), model, state)
    >>> values["target_modules"], list(arrays)[0]
    (['attn.c_proj'], 'base_model.model.transformer.h.0.attn.c_proj.lora_A.weight')
    """
    who = "save_adapter"
    table = _table(who, model_config)
    state = {name.replace(".base.bias", ".bias"): array for name, array in state.items()}   # whether an adapter stands before it or not
    adapters = _adapters(who, config, table, model_config, state)
    demand(who, bool(adapters), "an adapter of a rank above 0, as peft has none of rank 0", r=config.r)
    scalings = {name: _scaling(config, name) for name in adapters}
    arrays: dict[str, NDArray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for theirs, place in table.items():
        given = [name for name in place.modules if name in adapters]
        if given:
            adapter = adapters[given[0]] if len(place.modules) == 1 else joined(place, adapters, scalings, base or {})
            ends = ("lora_embedding_A", "lora_embedding_B") if place.embedding else ("lora_A.weight", "lora_B.weight")
            named = zip((*ends, "lora_magnitude_vector"), ("lora_A", "lora_B", "magnitude"), strict=True)
            arrays |= {f"{_PREFIX}{theirs}.{end}": np.ascontiguousarray(adapter[part]) for end, part in named if part in adapter}
            options = config.options(given[0])
            ranks[theirs] = len(adapter["lora_A"])
            alphas[theirs] = joined_alpha(options["alpha"], options["r"], ranks[theirs], rslora=config.rslora)
    for theirs, parts in _trained(config.bias, model_config, ranks).items():
        where = f"{theirs}.base_layer" if theirs in ranks else theirs
        arrays[f"{_PREFIX}{where}.bias"] = joined_bias(parts, state, base or {})

    targets, layers = shortest(ranks, table)
    (r, rank_pattern), (alpha, alpha_pattern) = pattern(ranks), pattern(alphas)
    return to_peft_options(
        config, r=r, lora_alpha=alpha, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern, target_modules=targets,
        layers_to_transform=layers, base_model_name_or_path=base_name, fan_in_fan_out=isinstance(model_config, GPT2Config),
    ), arrays


def adapter_from_peft(values: Mapping[str, Any], arrays: Mapping[str, NDArray], model_config: Config, *,
                      saved_as: LoRAConfig | None = None) -> tuple[LoRAConfig, dict[str, NDArray]]:
    """The way back; `load_adapter` explains. `saved_as`: our config when it was saved, which tells what of GPT-2 was joined."""
    who = "load_adapter"
    options = peft_options(who, values)
    table = _table(who, model_config)
    bare = not any(name.startswith(tuple(_PREFIX + family for family in _FAMILY_PREFIXES)) for name in arrays)
    strip = (lambda name: name.partition(".")[2] or name) if bare else str   # the names in a model that has no head
    table = {strip(theirs): place for theirs, place in table.items()}
    found, rest = _sorted(arrays)
    meant = peft_modules(who, options, table)
    same = set(found) == set(meant)
    demand(who, same and bool(found), "adapters for the modules of this model that adapter_config.json means",
           missing=sorted(set(meant) - set(found)), unknown=sorted(set(found) - set(meant)))

    saved = None if saved_as is None else {name: saved_as.rank(name) for name in saved_as.select(_kinds(table), function=who)}
    state: dict[str, NDArray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for theirs in meant:
        place, adapter = table[theirs], found[theirs]
        r, alpha = peft_rank(who, options, theirs)
        _fits(who, theirs, adapter, r, sum(place.outputs), place.inputs, options["use_dora"])
        was = None if saved is None else {name: saved[name] for name in place.modules if saved.get(name)}
        scalings = {name: _scaling(saved_as, name) for name in was} if saved_as and was else {}
        for name, own in split(place, adapter, was, scalings).items():
            ranks[name], alphas[name] = len(own["lora_A"]), alpha
            state |= {f"{name}.{part}": array for part, array in own.items()}
    trained = _rest(who, options["bias"], model_config, table, found, rest, strip)
    state |= {name: array for name, array in trained.items() if options["bias"] == "all" or name.removesuffix(".bias") in ranks}
    if saved_as is not None:
        for place in table.values():
            for name, rows in zip(place.modules, place.outputs, strict=True):
                if name in (saved or {}) and name not in ranks:              # of rank 0
                    dtype = next(iter(state.values())).dtype
                    state |= {f"{name}.lora_A": np.zeros((0, place.inputs), dtype), f"{name}.lora_B": np.zeros((rows, 0), dtype)}
        changed = saved_as.start in ("pissa", "olora", "loftq")
        return dataclasses.replace(saved_as, start="kaiming") if changed else saved_as, state
    targets, layers = shortest(ranks, _kinds(table))
    (r, rank_pattern), (alpha, alpha_pattern) = pattern(ranks), pattern(alphas)
    return from_peft_options(options, r=r, alpha=alpha, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern, targets=tuple(targets),
                             layers=None if layers is None else tuple(layers)), state


def _table(who: str, config: Config) -> dict[str, Place]:
    demand(who, isinstance(config, (GPT2Config, LlamaConfig)), "the config of a GPT-2 or Llama", model_config=config)
    return places(config)


def _kinds(table: Mapping[str, Place]) -> dict[str, str]:
    """Our modules that can have an adapter, as `LoRAConfig.select` takes them."""
    return {name: "Embedding" if place.embedding else "Linear" for place in table.values() for name in place.modules}


def _scaling(config: LoRAConfig, name: str) -> float:
    options = config.options(name)
    return options["alpha"] / (math.sqrt(options["r"]) if config.rslora else options["r"])


def _adapters(who: str, config: LoRAConfig, table: Mapping[str, Place], model_config: Config,
              state: Mapping[str, NDArray]) -> dict[str, Adapter]:
    """{our module: its arrays}, of those of a rank above 0, when `state` is exactly what the config asks for."""
    chosen = config.select(_kinds(table), function=who)
    adapted = {theirs for theirs, place in table.items() if any(name in chosen and config.rank(name) for name in place.modules)}
    parts = ("lora_A", "lora_B", "magnitude") if config.dora else ("lora_A", "lora_B")
    trained = [name for names in _trained(config.bias, model_config, adapted).values() for name in names]
    if config.bias == "lora_only":
        trained = [name for name in trained if name in chosen and config.rank(name)]
    same_names(who, [f"{name}.{part}" for name in chosen for part in parts] + [f"{name}.bias" for name in trained], state=state)
    found = {}
    for place in table.values():
        for name, rows in zip(place.modules, place.outputs, strict=True):
            if name in chosen:
                r = config.rank(name)
                adapter = {part: state[f"{name}.{part}"] for part in parts}
                _fits(who, name, adapter, r, rows, place.inputs, config.dora)
                demand(who, r > 0 or not config.dora, "magnitudes beside a rank above 0", **{name: r})
                if r > 0:
                    found[name] = adapter
    for sizes in biases(model_config).values():
        for name in sizes.keys() & set(trained):
            same_shape(who, (sizes[name],), **{f"{name}.bias": state[f"{name}.bias"]})
    return found


def _trained(bias: str, config: Config, adapted: Container[str]) -> dict[str, dict[str, int]]:
    """{their module: {our module: size}} of the biases that are saved: all, or those of modules with an adapter, or none."""
    return {theirs: sizes for theirs, sizes in biases(config).items() if bias == "all" or (bias == "lora_only" and theirs in adapted)}


def _fits(who: str, name: str, adapter: Mapping[str, NDArray], r: int, outputs: int, inputs: int, dora: bool) -> None:
    """Every array of an adapter is there, and as large as this module needs it."""
    shapes = {"lora_A": (r, inputs), "lora_B": (outputs, r)} | ({"magnitude": (outputs,)} if dora else {})
    same_names(who, shapes, **{f"the adapter of {name}": adapter})
    for part, shape in shapes.items():
        same_shape(who, shape, **{f"{name}.{part}": adapter[part]})
        floating = str(adapter[part].dtype) in ("float16", "float32", "float64")
        demand(who, floating, "floats", **{f"{name}.{part}": adapter[part]})


def _sorted(arrays: Mapping[str, NDArray]) -> tuple[dict[str, Adapter], dict[str, NDArray]]:
    """({their module: its adapter}, what belongs to none)."""
    found: dict[str, Adapter] = {}
    rest: dict[str, NDArray] = {}
    for name, array in arrays.items():
        end = next((end for end in _PARTS if name.endswith(f".{end}") and name.startswith(_PREFIX)), None)
        if end is None:
            rest[name.removeprefix(_PREFIX)] = array
        else:
            found.setdefault(name.removeprefix(_PREFIX).removesuffix(f".{end}"), {})[_PARTS[end]] = array
    return found, rest


def _rest(who: str, bias: str, config: Config, table: Mapping[str, Place], found: Container[str], rest: Mapping[str, NDArray],
          strip: Callable[[str], str]) -> dict[str, NDArray]:
    """Our biases among what is no adapter; the copies of embeddings are passed over, anything else is refused."""
    trained = {strip(theirs): sizes for theirs, sizes in biases(config).items()}
    trained = {theirs: sizes for theirs, sizes in trained.items() if bias == "all" or (bias == "lora_only" and theirs in found)}
    state: dict[str, NDArray] = {}
    seen = set()
    for theirs, sizes in trained.items():
        name = f"{theirs}.base_layer.bias" if theirs in found else f"{theirs}.bias"
        demand(who, name in rest, f"{name}, as bias={bias!r}", names=sorted(rest)[:4])
        same_shape(who, (sum(sizes.values()),), **{name: rest[name]})
        ends = list(itertools.accumulate(sizes.values()))
        state |= {f"{ours}.bias": part for ours, part in zip(sizes, np.split(rest[name], ends[:-1]), strict=True)}
        seen.add(name)
    copies = {f"{theirs}{end}": place for theirs, place in table.items() for end in (".base_layer.weight", ".weight")
              if place.modules in (("tokens",), ("head",))}
    for name in rest.keys() - seen:
        demand(who, name in copies, "nothing but adapters" + ("" if bias == "none" else " and biases"), **{"and this": name})
        place = copies[name]
        same_shape(who, (place.inputs, *place.outputs) if place.embedding else (*place.outputs, place.inputs), **{name: rest[name]})
    return state
