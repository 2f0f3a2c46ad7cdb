"""Tiny mixtures of experts, as configs of ours and as random models of transformers."""

import dataclasses

import torch

from byhand.configs.mixtral import MixtralConfig
from byhand.configs.rope import RopeConfig
from byhand.hugging_face.mixtral_config import mixtral_config_to_hugging_face

TINY = MixtralConfig(vocabulary=11, max_length=16, d_model=24, n_layers=3, n_heads=6, n_kv_heads=2, d_hidden=20, n_experts=5, k=2,
                     balance=0.1, jointly=True)
QWEN2 = dataclasses.replace(TINY, attention_bias="qkv", d_expert=10, d_shared=14, shared_gate=True, renormalise=False, k=3, dense=(1,))
QWEN3 = dataclasses.replace(TINY, qk_norm=True, d_expert=10, renormalise=False, head_width=8, rope=RopeConfig(width=8, base=1e6))
CONFIGS = {
    "mixtral": TINY,
    "mixtral, tied, window, geglu": dataclasses.replace(TINY, tied=True, window=3, activation="geglu", jitter=0.1),
    "mixtral, every expert": dataclasses.replace(TINY, k=5),
    "mixtral, one expert": dataclasses.replace(TINY, k=1, n_experts=3),
    "qwen2": QWEN2,
    "qwen2, unbiased, window, to one": dataclasses.replace(QWEN2, attention_bias=False, window=4, renormalise=True, dense=(), tied=True),
    "qwen3": QWEN3,
    "qwen3, biased, window, to one": dataclasses.replace(QWEN3, attention_bias=True, window=2, renormalise=True, dense=(0, 2)),
}
LAST = {"mixtral": "block_sparse_moe.experts.4.w2.weight", "qwen2_moe": "mlp.experts.4.down_proj.weight"}


def theirs_of(config):
    """A random model of transformers that computes its experts one after the other."""
    import transformers

    values = mixtral_config_to_hugging_face(config)
    cls = getattr(transformers, values["architectures"][0])
    theirs = cls(cls.config_class(**values, attn_implementation="eager", experts_implementation="eager", use_cache=False)).eval()
    assert theirs.config._experts_implementation == "eager"
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():       # biases and norms start as constants: they too must be told apart
            parameter.normal_(std=0.2)
            if "norm" in name:
                parameter.add_(1)
    return theirs


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}
