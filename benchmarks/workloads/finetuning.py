"""A step of fine-tuning a Llama: LoRA on all linear layers, QLoRA on a base in NF4 with scales quantized again, and LoRA by rank.

The second factors start as small normals instead of zeros, so that every adapter has a gradient to compare.
"""

from typing import Any

import numpy as np

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import built, implementation, multiplied, tokens, training
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.lora import LoRAConfig

MODELS = {
    "1M": LlamaConfig(4096, 256, 128, 2, 4, d_hidden=384, tied=True),
    "12M": LlamaConfig(4096, 512, 512, 3, 8, d_hidden=1408, tied=True),
    "SmolLM2-135M": LLAMA_PRESETS["smollm2-135m"],
    "TinyLlama-1.1B": LLAMA_PRESETS["tinyllama-1.1b"],
}
TINY = dict(model="1M", rank=8, length=32, batch=2)
MEDIUM = dict(model="12M", rank=16, length=128, batch=2)
LARGE = dict(model="SmolLM2-135M", rank=16, length=256, batch=2)
POINTS: dict[Any, Any] = {"small": {"1M, rank 8": TINY}, "medium": {"12M, rank 16": MEDIUM}, "large": {"SmolLM2-135M, rank 16": LARGE}}


@workload("LoRA step", POINTS, compiled=True)
def lora_step(column: Column, *, model: str, rank: int, length: int, batch: int, quantized: bool = False, dtype: str = "float32") -> Work:
    """One update of the adapters."""
    config = MODELS[model]

    def adapt(side: str, changed: Any) -> None:
        if quantized:
            implementation(side, "quantize.quantize_linears.quantize_linears")(changed, double=True)
        apply_lora = implementation(side, "finetune.manager.apply_lora")
        rng = np.random.default_rng(1) if side == "numpy" else None                 # the torch twin takes these values over
        apply_lora(changed, LoRAConfig(r=rank, alpha=2.0 * rank, targets="all-linear"), rng=rng)
        if rng is not None:
            for name, array in changed.parameters().items():
                if name.endswith("lora_B"):
                    array[...] = rng.standard_normal(array.shape, dtype=np.float32) * np.float32(0.02)

    adapted = built(column, config, change=adapt, dtype=dtype)
    of_adapters = sum(map(_size, _trained(column, adapted)))
    ids = tokens(config.vocabulary, batch, length + 1)
    return training(column, adapted, ids, trained=of_adapters, frozen=multiplied(config), dtype=dtype)


def _trained(column: Column, model: Any) -> list[Any]:
    return list(model.parameters().values()) if column.side == "numpy" else [p for p in model.parameters() if p.requires_grad]


def _size(array: Any) -> int:
    return int(np.prod(array.shape))


@workload("QLoRA step", POINTS, threads=(1, 2))
def qlora_step(column: Column, **size: Any) -> Work:
    """The same on a base in four bits."""
    return lora_step(column, **size, quantized=True)


@workload("LoRA step in bfloat16", {"large": {"TinyLlama-1.1B, rank 16": dict(model="TinyLlama-1.1B", rank=16, length=1024, batch=4)}},
          compiled=True, columns=("cuda", "cuda compiled"))
def half_step(column: Column, **size: Any) -> Work:
    """On a GPU alone."""
    return lora_step(column, **size, dtype="bfloat16")


@workload("LoRA step by rank", {"small": (1, 8, 64), "medium": (1, 4, 16, 64), "large": (1, 4, 16, 64, 256)}, axis="rank")
def by_rank(column: Column, *, rank: int) -> Work:
    """A Llama of width 128, 2 texts of 128 tokens."""
    return lora_step(column, model="1M", rank=rank, length=128, batch=2)
