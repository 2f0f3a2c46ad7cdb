"""Small models that a method of fine-tuning is applied to: what changed, and what is trained then."""

import math
import zlib
from typing import Any

import numpy as np

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from numpy_impl.layers.module import flatten

GPT2 = GPT2Config(vocabulary=5, max_length=6, d_model=4, n_layers=2, n_heads=2)
LLAMA = LlamaConfig(vocabulary=5, max_length=6, d_model=6, n_layers=2, n_heads=2, n_kv_heads=1, head_width=4, d_hidden=6)
MIXTRAL = MixtralConfig(vocabulary=5, max_length=6, d_model=8, n_layers=2, n_heads=2, d_hidden=6, n_experts=3, d_shared=4, dense=(0,))
IDS, TARGETS = np.array([[1, 4, 2], [3, 0, 3]]), np.array([[4, 2, 1], [0, 3, -100]])


def made(side, config):
    """The model of a config, filled."""
    model = side.get(f"models.{type(config).__name__.removesuffix('Config')}")(config, dtype=side.dtype)
    fill(side, model)
    return model


def fill(side, model):
    """Fill a model of either side alike: values that depend on an array's name and shape alone. What is quantized stays."""
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith(("codes", "absmax")):
            state[name] = side.numpy(value)
            continue
        shape = tuple(value.shape)
        normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        state[name] = 0.6 * normal / math.sqrt(shape[-1]) if len(shape) > 1 else 1 + 0.3 * normal
    side.load(model, state)


def plain_copy(side, quantized):
    """A Linear with the weight that the codes of a Linear4bit stand for, and its bias."""
    n_out, n_in = quantized.weight.shape
    plain = side.get("layers.Linear")(n_in, n_out, bias=quantized.bias is not None, dtype=side.dtype)
    bias = {} if quantized.bias is None else {"bias": side.numpy(quantized.bias)}
    side.load(plain, {"weight": side.numpy(quantized.weight)} | bias)
    return plain


def trainable(module):
    """The names of what is trained, on either side."""
    return list(module.parameters()) if hasattr(module, "unfreeze") else [n for n, p in module.named_parameters() if p.requires_grad]


def trained(side, model):
    """The loss, the names of what is trained, and all gradients in one array: a small one is rounded as the large ones it is made of."""
    ids, targets = side.array(IDS), side.array(TARGETS)
    if side.name == "numpy":
        loss, backward = model.loss(ids, targets)
        grads = flatten(backward())
    else:
        loss = model.loss(ids, targets)
        loss.backward()
        grads = {name: side.numpy(p.grad) for name, p in model.named_parameters() if p.requires_grad}
    together = np.concatenate([grads[name].ravel() for name in sorted(grads)])
    return {"loss": loss, "gradients": together} | {f"trains {name}": np.ones(grad.shape) for name, grad in grads.items()}


def adapted(side, config, method, *, quantized=False, **options):
    """What `method` wrapped, whether the model still computes the same, and its loss and gradients with other values in all arrays."""
    model = made(side, config)
    if quantized:
        side.get("quantize.quantize_linears")(model, block=8)
    before = side.numpy(model(side.array(IDS)))
    names = side.get(method)(model, **options)
    after = side.numpy(model(side.array(IDS)))
    shown: dict[str, Any] = {f"wrapped {i}: {name}": np.ones(()) for i, name in enumerate(names)}
    shown |= {"starts as its base": np.array_equal(before, after)}
    shown |= {f"state.{name}": np.ones(tuple(value.shape)) for name, value in model.state_dict().items()}
    fill(side, model)
    return shown | {"logits": model(side.array(IDS))} | trained(side, model)
