"""Each way to fine-tune, applied to a model of either side, as a configuration says."""

import importlib
import re
from typing import Any

from byhand.checks import fail
from byhand.configs.lora import LoRAConfig
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.ranks import ranks_for_memory, ranks_for_parameters, ranks_for_share
from byhand.finetuning.sizes import inventory, weight_shapes

_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def adapt(side: str, model: Any, config: FinetuneConfig, rng: Any) -> tuple[Any, LoRAConfig | None]:
    """(the model to train, what its LoRA adapters are like, or None of another method); all but the adapters are frozen.

    side   "numpy" or "torch", whose model this is;  rng   its generator, of the adapters' starting values
    """
    room = f"{side}_impl.finetune"
    if config.method == "lora":
        lora = with_budget(model, config)
        importlib.import_module(f"{room}.manager").apply_lora(model, lora, rng=rng)
        return model, lora
    if config.method == "mixlora":
        importlib.import_module(f"{room}.apply_mixlora").apply_mixlora(model, config.mixlora, rng=rng)
        return model, None
    options: dict[str, Any] = {} if config.targets is None else {"targets": config.targets}
    if config.method == "ia3":
        importlib.import_module(f"{room}.ia3").apply_ia3(model, **options)
    elif config.method == "bottleneck":
        importlib.import_module(f"{room}.bottleneck").apply_bottleneck(model, width=config.bottleneck, rng=rng, **options)
    elif config.method == "prefix":
        importlib.import_module(f"{room}.prefix_layers").apply_prefix(model, n=config.virtual_tokens, rng=rng)
    elif config.method == "prompt":
        model = importlib.import_module(f"{room}.prompt").PromptTuned(model, config.virtual_tokens, rng=rng)
    return model, None


def with_budget(model: Any, config: FinetuneConfig) -> LoRAConfig:
    """The config of the adapters, with the highest ranks that the budget allows, if there is one.

    Raises
    ------
    ValueError   if the budget cannot be read, or is too small for a rank of 1
    """
    lora = config.lora
    if config.budget is None:
        return lora
    kinds = {name: type(module).__name__ for name, module in _modules(model)}
    shapes = weight_shapes(model, lora.select(kinds, function="finetune"))
    kind, value = parse_budget(config.budget)
    if kind == "parameters":
        plan = ranks_for_parameters(shapes, int(value), dora=lora.dora)
    elif kind == "bytes":
        plan = ranks_for_memory(shapes, int(value), dora=lora.dora)
    else:
        plan = ranks_for_share(shapes, value, total=sum(stored.parameters for stored in inventory(model)), dora=lora.dora)
    return plan.config(lora)


def parse_budget(text: str, *, who: str = "finetune",
                 needs: str = "a budget such as '20000 parameters', '2MB' or '5%'") -> tuple[str, float]:
    """("parameters", n), ("bytes", n) or ("share", 0 … 1); `who` reads it, and says what it needs.

    Raises
    ------
    ValueError   if it is none of the three

    Examples
    --------
    >>> parse_budget("20000 parameters"), parse_budget("2MB"), parse_budget("5%")
    (('parameters', 20000.0), ('bytes', 2000000.0), ('share', 0.05))
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|parameters|[kMG]?B|[KMG]iB)?\s*", text)
    if not found:
        fail(who, needs, repr(text))
    assert found
    value, unit = float(found[1]), found[2] or "parameters"
    if unit == "%":
        return "share", value / 100
    return ("parameters", value) if unit == "parameters" else ("bytes", value * _UNITS[unit])


def _modules(model: Any) -> list[tuple[str, Any]]:
    return [pair for pair in (model.named_modules() if hasattr(model, "named_modules") else model.modules()) if pair[0]]
