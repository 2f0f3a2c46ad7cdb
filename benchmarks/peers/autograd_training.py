"""A GPT's training step in HIPS autograd: value_and_grad, and AdamW written down in NumPy."""

import math
from typing import Any

from benchmarks.peers._training import BETAS, DECAY, EPS, LR, gpt, numbers
from benchmarks.peers.autograd_components import attention, cross_entropy, gelu_tanh, layer_norm
from benchmarks.workload import Unable, Work, peer


@peer("HIPS autograd", of="GPT training step", needs="autograd")
def gpt_step(**options: Any) -> Work:
    """Its AdamW works in place, on arrays of float32 and with Python's numbers, so that nothing becomes float64."""
    import autograd.numpy
    import numpy as np
    from autograd import value_and_grad

    model, ids = gpt(**options)
    if model.config.parameters > 5e6:
        raise Unable("a step of more than 5 million parameters takes it seconds")
    config, params = model.config, {name: array.copy() for name, array in model.state_dict().items()}
    moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in params.items()}
    differentiated = value_and_grad(lambda params: _loss(autograd.numpy, params, ids, config.n_heads, config.n_layers, config.norm_eps))
    steps = 0

    def run() -> Any:
        nonlocal steps
        steps += 1
        loss, grads = differentiated(params)
        first, second = 1 - BETAS[0] ** steps, 1 - BETAS[1] ** steps
        for name, param in params.items():
            grad, (m, v) = grads[name], moments[name]
            m += (1 - BETAS[0]) * (grad - m)
            v += (1 - BETAS[1]) * (grad * grad - v)
            param *= 1 - LR * DECAY
            param -= LR / first * m / (np.sqrt(v) / math.sqrt(second) + EPS)
        return loss, grads

    return Work(run, numbers=lambda: numbers(run))


def _loss(np: Any, params: Any, ids: Any, heads: int, layers: int, eps: float) -> Any:
    given, wanted = ids[:, :-1], ids[:, 1:]
    b, t = given.shape

    def linear(x: Any, name: str) -> Any:
        return np.matmul(x, params[f"{name}.weight"].T) + params[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        return layer_norm(np, x, params[f"{name}.weight"], params[f"{name}.bias"], eps)

    def attended(x: Any, name: str) -> Any:
        query, key, value = (np.swapaxes(np.reshape(linear(x, f"{name}.{part}_proj"), (b, t, heads, -1)), 1, 2) for part in "qkv")
        y = attention(np, query, key, value, causal=True)
        return linear(np.reshape(np.swapaxes(y, 1, 2), (b, t, -1)), f"{name}.o_proj")

    x = params["tokens.weight"][given] + params["positions.weight"][:t]
    x = np.reshape(x, (b * t, -1))
    for i in range(layers):
        block = f"blocks.{i}"
        x = x + np.reshape(attended(norm(x, f"{block}.norm1"), f"{block}.attn"), x.shape)
        x = x + linear(gelu_tanh(np, linear(norm(x, f"{block}.norm2"), f"{block}.mlp.up_proj")), f"{block}.mlp.down_proj")
    return cross_entropy(np, np.matmul(norm(x, "norm"), params["tokens.weight"].T), wanted.reshape(-1))
