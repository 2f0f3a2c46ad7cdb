"""One QLoRA update on a GPU, ours or peft's with bitsandbytes: `python -m benchmarks.studies.memory_cuda MODEL byhand|peft`."""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.lora import LoRAConfig

DEVICE, LENGTH = "cuda", 128
TARGETS, RANK = ("q_proj", "v_proj"), 8


def main(model: str, whose: str) -> dict[str, Any]:
    """The most memory that was allocated: until the model stood, and in the update."""
    config = LLAMA_PRESETS[model]
    torch.manual_seed(0)
    trained, loss = {"byhand": _byhand, "peft": _peft}[whose](config)
    built = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = torch.randint(config.vocabulary, (1, LENGTH + 1), device=DEVICE)
    loss(ids).backward()
    optimizer.step()
    torch.cuda.synchronize()
    return dict(allocated=torch.cuda.max_memory_allocated(), built=built, device=torch.cuda.get_device_name(), torch=torch.__version__)


def _byhand(config: LlamaConfig) -> tuple[list[nn.Parameter], Callable[[Tensor], Tensor]]:
    """Our twin: bfloat16, blocks quantized one by one as they are made on the device, recompute."""
    from torch_impl.finetune.manager import apply_lora
    from torch_impl.models.llama import Llama
    from torch_impl.quantize.quantize_linears import quantize_linears

    def prepare(block: nn.Module) -> nn.Module:
        quantize_linears(block, kind="nf4", double=True)
        return block

    model = Llama(config, dtype=torch.bfloat16, device=DEVICE, prepare=prepare)
    apply_lora(model, LoRAConfig(r=RANK, targets=TARGETS))
    return [p for p in model.parameters() if p.requires_grad], lambda ids: model.loss(ids[:, :-1], ids[:, 1:], run="recompute")


def _peft(config: LlamaConfig) -> tuple[list[nn.Parameter], Callable[[Tensor], Tensor]]:
    """transformers' Llama, its blocks' matrices as bitsandbytes keeps them, peft's adapters, gradient checkpointing."""
    import peft
    import transformers

    from byhand.hugging_face.llama import llama_config_to_hugging_face

    layers: Any = importlib.import_module("bitsandbytes.nn")         # its names are not exported for type checkers
    theirs = transformers.LlamaConfig(**{k: v for k, v in llama_config_to_hugging_face(config).items() if k != "model_type"})
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(theirs)
        model = model.to(torch.bfloat16)
    for name, module in list(model.model.layers.named_modules()):
        if isinstance(module, nn.Linear):
            weight = 0.02 * torch.randn(module.weight.shape, dtype=torch.bfloat16)
            small = layers.Linear4bit(module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16,
                                      compress_statistics=True, quant_type="nf4", device="meta")
            small.weight = layers.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4").to(DEVICE)
            model.model.layers.set_submodule(name, small)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = torch.full(parameter.shape, 0.02, dtype=torch.bfloat16, device=DEVICE)
                setattr(module, name, nn.Parameter(value, requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(theirs, device=DEVICE)
    model.tie_weights()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    model.enable_input_require_grads()
    model.train()
    return [p for p in model.parameters() if p.requires_grad], lambda ids: model(input_ids=ids, labels=ids).loss


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
