"""peft's adapter_config.json: which of its options ours can be, and which modules it means."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from byhand.checks import choice, demand, positive, size
from byhand.configs.lora import LoRAConfig, Start
from byhand.configs.targets import by_key

_STARTS: dict[Any, Start] = {True: "kaiming", False: "kaiming", "gaussian": "gaussian", "orthogonal": "kaiming", "eva": "kaiming"}
_DEFAULTS: dict[str, Any] = {
    "r": 8, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "use_rslora": False, "use_dora": False, "rank_pattern": {},
    "alpha_pattern": {}, "target_modules": None, "exclude_modules": None, "layers_to_transform": None, "layers_pattern": None,
    "init_lora_weights": True,
}
# What says nothing about the result; every option that stands neither here nor above must be off.
_SILENT = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "fan_in_fan_out",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size",
    "ensure_weight_tying",
}


def peft_options(who: str, values: Any) -> dict[str, Any]:
    """The options of an adapter_config.json, with peft's defaults for those it leaves out.

    Raises
    ------
    ValueError   naming an option that ours have not (another kind of adapter, modules trained whole, a start that changed the base …)
                 or whose value is none
    """
    demand(who, isinstance(values, Mapping), "names and values in adapter_config.json", content=values)
    choice(who, ("LORA",), peft_type=values.get("peft_type"))
    on = {name: value for name, value in values.items() if name not in _SILENT and name not in _DEFAULTS and value}
    demand(who, not on, f"an adapter without {', '.join(sorted(on))}", **on)
    options = _DEFAULTS | {name: value for name, value in values.items() if name in _DEFAULTS and value is not None}
    start = options["init_lora_weights"]
    known = isinstance(start, bool) or start in [name for name in _STARTS if isinstance(name, str)]
    demand(who, known, "an adapter whose start left the base as it was (peft converts others when it saves them with "
           "path_initial_model_for_weight_conversion)", init_lora_weights=start)
    size(who, r=options["r"])
    positive(who, lora_alpha=options["lora_alpha"])
    for name in ("rank_pattern", "alpha_pattern"):
        demand(who, isinstance(options[name], Mapping), f"{name} as a dict of values by name", **{name: options[name]})
    for name in ("target_modules", "exclude_modules"):
        value = options[name]
        names = value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
        demand(who, names, f"{name} as a list of names or a regular expression", **{name: value})
    demand(who, bool(options["target_modules"]), "target_modules", target_modules=options["target_modules"])
    layers = options["layers_to_transform"]
    layers = [layers] if isinstance(layers, int) else layers
    demand(who, layers is None or isinstance(layers, list), "layers_to_transform as block numbers", layers_to_transform=layers)
    return options | {"layers_to_transform": layers}


def peft_modules(who: str, options: Mapping[str, Any], modules: Iterable[str]) -> list[str]:
    """Which of a model's modules peft would put an adapter on."""
    try:
        return [name for name in modules if _chosen(options, name)]
    except (re.error, TypeError) as error:
        raise ValueError(f"{who} needs target_modules, exclude_modules and layers_pattern to be names or expressions; {error}") from error


def peft_rank(who: str, options: Mapping[str, Any], module: str) -> tuple[int, float]:
    """(r, α) of the adapter on a module."""
    try:
        r, alpha = by_key(options["rank_pattern"], module, options["r"]), by_key(options["alpha_pattern"], module, options["lora_alpha"])
    except re.error as error:
        raise ValueError(f"{who} needs patterns of ranks and α with regular expressions; {error}") from error
    size(who, **{f"r of {module}": r})
    positive(who, **{f"alpha of {module}": alpha})
    return r, alpha


def from_peft_options(options: Mapping[str, Any], **places: Any) -> LoRAConfig:
    """Ours; `places` are the options that name our modules instead of theirs."""
    return LoRAConfig(
        dropout=options["lora_dropout"], rslora=options["use_rslora"], dora=options["use_dora"], bias=options["bias"],
        start=_STARTS[options["init_lora_weights"]], **places,
    )


def to_peft_options(config: LoRAConfig, **places: Any) -> dict[str, Any]:
    """The way back. The start is left out: what it changed in the base is in the base by now."""
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "lora_dropout": config.dropout, "bias": config.bias,
        "use_rslora": config.rslora, "use_dora": config.dora, "init_lora_weights": True, "exclude_modules": None, "modules_to_save": None,
        **places,
    }


def _chosen(options: Mapping[str, Any], name: str) -> bool:
    targets, exclude, layers = options["target_modules"], options["exclude_modules"], options["layers_to_transform"]
    if exclude and (re.fullmatch(exclude, name) if isinstance(exclude, str) else _ends(name, exclude)):
        return False
    if targets == "all-linear":
        return not name.endswith(("lm_head", "wte", "embed_tokens"))
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return _ends(name, targets) and (not layers or _layer(options["layers_pattern"], name) in layers)


def _ends(name: str, ends: Iterable[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _layer(patterns: str | list[str] | None, name: str) -> int | None:
    """The number that counts the layers: the first one behind a dot, or behind one of the patterns."""
    expressions = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in ([patterns] if isinstance(patterns, str) else patterns or [])]
    found = (re.match(expression, name) for expression in expressions or [r".*?\.[^.]*\.(\d+)\."])
    return next((int(match[1]) for match in found if match), None)
