"""A run's LoRA adapters as the files that peft reads: for the base that the run was given, whatever the start made of it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.lora import LoRAConfig
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base
from byhand.hugging_face.adapter import save_adapter


def write_for_peft(path: Path, config: FinetuneConfig, base: Base, model: Any, lora: LoRAConfig, trained: Mapping[str, NDArray],
                   begun: Mapping[str, NDArray]) -> str:
    """Write the two files if there can be any, and say for which base they are, or why there are none.

    model   the adapted model;  lora   of its adapters;  trained, begun   what is trained, by name: as it is, and as it began
    """
    now, then = _state(trained), _state(begun)
    where = base.title if base.path is None else str(base.path)
    if all(array.size == 0 for name, array in now.items() if name.endswith(".lora_A")):
        return "No files for peft: every adapter has rank 0, of which peft has none."
    if lora.start in ("pissa", "olora"):
        if base.quantized is not None or config.quantize != "none":
            return (f"No files for peft: {lora_start(config)} changed the base, and what it left was quantized again, so that no adapter "
                    f"on the base as it was has these outputs. The run itself works: byhand generate --adapter {path.parent}")
        lora, now = for_original_base(lora, now, then)
        note = f"{path} is for {where} as it was before {lora_start(config)} took its part, with ranks twice as high, as B A − B₀ A₀."
    elif lora.start == "loftq":
        lora = dataclasses.replace(lora, start="kaiming")
        note = f"{path} is for {where} with the layers that have adapters in NF4, in blocks of 64."
    elif base.quantized is not None or config.quantize != "none":
        kind, block = (config.quantize, config.block) if base.quantized is None else (base.quantized.kind, base.quantized.block)
        note = f"{path} is for {where} in {kind}, in blocks of {block}, as it was trained."
    else:
        note = f"{path} is for {where}."
    save_adapter(path, config=lora, model_config=base.config, state=now, base_name=where, base=_joined_there(model, base, lora),
                 dtype="bfloat16" if config.adapter_dtype == "bfloat16" else "own")
    return note


def for_original_base(lora: LoRAConfig, now: Mapping[str, NDArray], then: Mapping[str, NDArray]) -> tuple[LoRAConfig, dict[str, NDArray]]:
    """(config, state) that mean on W what `now` means on the rest that the start left, where `then` is what the adapters began with.

    The start made the base W − s B₀A₀, so the model has

        W − s B₀A₀ + s B A  =  W + s [B, −B₀] [A ]
                                              [A₀],

    an adapter of twice the rank. For the same s, α must be twice as large, or √2 times with rsLoRA.

    Examples
    --------
    >>> one = {"q.lora_A": np.array([[3.0, 4.0]]), "q.lora_B": np.array([[2.0], [1.0]])}
    >>> begun = {"q.lora_A": np.array([[1.0, 0.0]]), "q.lora_B": np.array([[5.0], [6.0]])}
    >>> config, state = for_original_base(LoRAConfig(r=1, alpha=4.0, start="pissa"), one, begun)
    >>> config.r, config.alpha, state["q.lora_B"] @ state["q.lora_A"]
    (2, 8.0, array([[ 1.,  8.],
           [-3.,  4.]]))
    """
    factor = math.sqrt(2) if lora.rslora else 2
    state = dict(now)
    for name, array in now.items():
        if name.endswith(".lora_A"):
            state[name] = np.concatenate([array, then[name]])
        elif name.endswith(".lora_B"):
            state[name] = np.concatenate([array, -then[name]], axis=1)
    config = dataclasses.replace(
        lora, r=2 * lora.r, alpha=factor * lora.alpha, rank_pattern={key: 2 * r for key, r in lora.rank_pattern.items()},
        alpha_pattern={key: factor * alpha for key, alpha in lora.alpha_pattern.items()}, start="kaiming",
    )
    return config, state


def lora_start(config: FinetuneConfig) -> str:
    """Its name as its authors write it."""
    return {"pissa": "PiSSA", "olora": "OLoRA"}.get(config.start, config.start)


def _state(trained: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """By the names of the plain model's modules."""
    return {key.replace(".adapters.default.", ".").replace(".base.bias", ".bias"): array for key, array in trained.items()}


def _joined_there(model: Any, base: Base, lora: LoRAConfig) -> dict[str, NDArray] | None:
    """Weights and biases of GPT-2's queries, keys and values, which peft's file holds together, if it needs those without an adapter."""
    if not isinstance(base.config, GPT2Config) or not (lora.dora or lora.bias != "none"):
        return None
    walk = model.named_modules() if hasattr(model, "named_modules") else model.modules()
    found: dict[str, NDArray] = {}
    for name, module in walk:
        if name.endswith((".q_proj", ".k_proj", ".v_proj")):
            plain = getattr(module, "base", module)
            found |= {f"{name}.weight": _numpy(plain.weight), f"{name}.bias": _numpy(plain.bias)}
    return found


def _numpy(array: Any) -> NDArray:
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
