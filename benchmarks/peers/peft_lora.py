"""A step of LoRA and of QLoRA by peft, on transformers' Llama: the same base, adapters, tokens and AdamW.

Bases in 4 bits are bitsandbytes'.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._training import torch_step
from benchmarks.workload import Column, Unable, Work, peer
from benchmarks.workloads._common import built, implementation, tokens
from benchmarks.workloads.finetuning import MODELS
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face.adapter import save_adapter
from byhand.hugging_face.adapter_maps import adapter_from_peft, adapter_to_peft
from byhand.hugging_face.directory import save_hugging_face

_OWN = ".adapters.default"                       # what our names have where an adapter is managed


@on_cuda("peft", of="LoRA step", needs="peft")
@peer("peft", of="LoRA step", needs="peft")
def lora_step(*, model: str, rank: int, length: int, batch: int, device: str = "cpu", quantized: bool = False,
              dtype: str = "float32") -> Work:
    """One update of the adapters."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config, lora = MODELS[model], LoRAConfig(r=rank, alpha=2.0 * rank, targets="all-linear")

    def adapt(side: str, changed: Any) -> None:
        rng = np.random.default_rng(1)
        implementation(side, "finetune.manager.apply_lora")(changed, lora, rng=rng)
        for name, array in changed.parameters().items():
            if name.endswith("lora_B"):
                array[...] = rng.standard_normal(array.shape, dtype=np.float32) * np.float32(0.02)

    adapted = built(Column("numpy"), config, change=adapt)
    trained = {name.replace(_OWN, ""): array for name, array in adapted.parameters().items()}
    state = {name.replace(".base.", "."): array for name, array in adapted.state_dict().items() if _OWN not in name}
    values, _ = adapter_to_peft(lora, config, trained)
    options = {"quantization_config": _four_bits(), "device_map": device} if quantized else {}
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = str(Path(folder) / "base"), str(Path(folder) / "adapter")
        save_hugging_face(base, config, state)
        save_adapter(adapter, config=lora, model_config=config, state=trained, base_name=base)
        theirs = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype), **options)
        tuned = PeftModel.from_pretrained(theirs, adapter, is_trainable=True, autocast_adapter_dtype=False).to(device).train()
    parameters = {name.replace(".default.", "."): p for name, p in tuned.named_parameters() if p.requires_grad}

    def ours(grads: dict[str, Any]) -> dict[str, Any]:
        _, named = adapter_from_peft(values, grads, config)
        return {f"{module}{_OWN}.{part}": grad for (module, _, part), grad in ((n.rpartition("."), g) for n, g in named.items())}

    return torch_step(lambda ids: tuned(input_ids=ids, use_cache=False).logits, parameters, tokens(config.vocabulary, batch, length + 1),
                      device=device, ours=ours if dtype == "float32" else None)


@on_cuda("peft", of="LoRA step in bfloat16", needs="peft")
def half_step(**options: Any) -> Work:
    """The same in bfloat16, adapters too."""
    return lora_step(dtype="bfloat16", **options)


@on_cuda("peft", of="QLoRA step", needs="peft")
@peer("peft", of="QLoRA step", needs="peft")
def qlora_step(**options: Any) -> Work:
    """The same on a base in NF4, scales quantized too; it computes in float32."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Unable("peft needs bitsandbytes for a base in 4 bits, and it is not installed")
    return lora_step(**options, quantized=True)


def _four_bits() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=torch.float32)
