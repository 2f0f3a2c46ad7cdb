"""Training steps of transformers' models with our weights: GPT-2 and Mixtral, their kernels as they are by default, AdamW fused."""

from typing import Any

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._hugging_face import causal
from benchmarks.peers._training import gpt, torch_step
from benchmarks.workload import Column, Work, peer
from benchmarks.workloads._common import built, tokens
from byhand.configs.mixtral import MixtralConfig
from byhand.hugging_face.gpt2 import gpt2_from_hugging_face
from byhand.hugging_face.mixtral import mixtral_from_hugging_face


@on_cuda("transformers", of="GPT training step", needs="transformers")
@peer("transformers", of="GPT training step", needs="transformers")
def gpt_step(*, device: str = "cpu", dtype: str = "float32", **options: Any) -> Work:
    """GPT2LMHeadModel."""
    ours, ids = gpt(**options)
    model = causal(ours.config, ours.state_dict(), device, dtype).train()
    return torch_step(lambda ids: model(input_ids=ids, use_cache=False).logits, dict(model.named_parameters()), ids, device=device,
                      ours=gpt2_from_hugging_face if dtype == "float32" else None)


@on_cuda("transformers", of="GPT-2 124M training step in bfloat16", needs="transformers")
def half_step(**options: Any) -> Work:
    """The same in bfloat16, moments too."""
    return gpt_step(dtype="bfloat16", **options)


@on_cuda("transformers", of="MoE step", needs="transformers")
@peer("transformers", of="MoE step", needs="transformers")
def moe_step(
    *, d_model: int, n_layers: int, n_heads: int, d_hidden: int, length: int, batch: int, n_experts: int = 8, k: int = 2,
    device: str = "cpu",
) -> Work:
    """MixtralForCausalLM; its load-balance loss is asked for each layer, as the workload does: its own forward takes all as one."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = MixtralConfig(4096, length, d_model, n_layers, n_heads, d_hidden=d_hidden, n_experts=n_experts, k=k, tied=True, balance=0.01)
    model = causal(config, built(Column("numpy"), config).state_dict(), device).train()
    routers: list[Any] = []

    def logits_of(ids: Any) -> Any:
        found = model(input_ids=ids, use_cache=False, output_router_logits=True)
        routers[:] = found.router_logits
        return found.logits

    def balance() -> Any:
        return config.balance * sum(load_balancing_loss_func((logits,), n_experts, k) for logits in routers)

    return torch_step(logits_of, dict(model.named_parameters()), tokens(4096, batch, length + 1), device=device, added=balance,
                      ours=lambda grads: mixtral_from_hugging_face(grads, config))
