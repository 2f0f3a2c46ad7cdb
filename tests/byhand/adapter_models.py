"""Two small models of transformers, and adapters of ours for them."""

import numpy as np
import torch

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.hugging_face import gpt2, llama
from byhand.hugging_face.adapter_places import places

LLAMA = LlamaConfig(vocabulary=11, max_length=16, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_hidden=12, attention_bias=True)
GPT_2 = GPT2Config(vocabulary=11, max_length=16, d_model=8, n_layers=2, n_heads=2, d_hidden=12, dropout=0.0)


def theirs(config, seed=0, **options):
    """A transformers model with random weights, in float64."""
    import transformers

    torch.manual_seed(seed)
    if isinstance(config, LlamaConfig):
        values = llama.llama_config_to_hugging_face(config)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values, **options))
    else:
        values = gpt2.gpt2_config_to_hugging_face(config)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**values, bos_token_id=0, eos_token_id=0))
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def base_state(model, config):
    state = {name: array.numpy().copy() for name, array in model.state_dict().items()}
    return llama.llama_from_hugging_face(state, config) if isinstance(config, LlamaConfig) else gpt2.gpt2_from_hugging_face(state)


def drawn(config, lora, base, seed=0):
    """A random state for an adapter of ours."""
    rng, state = np.random.default_rng(seed), {}
    kinds = {name: "Embedding" if place.embedding else "Linear" for place in places(config).values() for name in place.modules}
    for name in lora.select(kinds):
        rows, columns = base[f"{name}.weight"].shape[:: -1 if name == "tokens" else 1]
        r = lora.rank(name)
        state[f"{name}.lora_A"], state[f"{name}.lora_B"] = rng.standard_normal((r, columns)), rng.standard_normal((rows, r))
        if lora.dora:
            state[f"{name}.magnitude"] = rng.uniform(0.5, 2, rows)
        if lora.bias == "lora_only" and f"{name}.bias" in base and r:
            state[f"{name}.bias"] = rng.standard_normal(rows)
    if lora.bias == "all":
        state |= {name: rng.standard_normal(array.shape) for name, array in base.items() if name.endswith(".bias")}
    return state
