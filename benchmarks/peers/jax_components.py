"""Components by jax.jit, differentiated by jax.vjp, on the CPU."""

import math
from collections.abc import Callable
from typing import Any

from benchmarks.peers._component import Call, Given, recipes


def prepare(recipe: Callable, given: Given) -> Call:
    """A recipe and what it is given -> dy -> y and the gradients."""
    import jax

    integers = {name: jax.device_put(value) for name, value in given.rest.items() if hasattr(value, "dtype")}
    options = {name: value for name, value in given.rest.items() if name not in integers}
    arrays = [jax.device_put(array) for array in given.arrays.values()]

    @jax.jit
    def both(dy: Any, arrays: Any, integers: Any) -> tuple[Any, ...]:
        y, pullback = jax.vjp(lambda *leaves: recipe(jax, *leaves, **integers, **options), *arrays)
        return y, *pullback(dy)

    return lambda dy: jax.block_until_ready(both(dy, arrays, integers))


def layer_norm(jax: Any, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Over the last axis; a little faster than with x.var."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jax.numpy.square(centred).mean(-1, keepdims=True) + eps) * weight + bias


def _rms_norm(jax: Any, x: Any, weight: Any, eps: float = 1e-6) -> Any:
    return x * jax.lax.rsqrt(jax.numpy.square(x).mean(-1, keepdims=True) + eps) * weight


def cross_entropy(jax: Any, logits: Any, targets: Any) -> Any:
    """The mean of −log softmax(logits)[target]."""
    chosen = jax.numpy.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()


def attention(jax: Any, query: Any, key: Any, value: Any, causal: bool = False) -> Any:
    """softmax(q kᵀ / √D) v as it is written down: jax.nn.dot_product_attention takes twice as long on a CPU (jax 0.10)."""
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    if causal:
        scores = jax.numpy.where(jax.numpy.tri(query.shape[-2], key.shape[-2], dtype=bool), scores, -math.inf)
    return jax.nn.softmax(scores) @ value


recipes("jax.jit", "jax", {
    "ops.relu": lambda jax, x: jax.nn.relu(x),
    "ops.sigmoid": lambda jax, x: jax.nn.sigmoid(x),
    "ops.tanh": lambda jax, x: jax.numpy.tanh(x),
    "ops.softplus": lambda jax, x: jax.nn.softplus(x),
    "ops.gelu": lambda jax, x: jax.nn.gelu(x, approximate=False),
    "ops.gelu_tanh": lambda jax, x: jax.nn.gelu(x, approximate=True),
    "ops.silu": lambda jax, x: jax.nn.silu(x),
    "ops.mish": lambda jax, x: jax.nn.mish(x),
    "ops.swiglu": lambda jax, gate, up: jax.nn.silu(gate) * up,
    "ops.geglu": lambda jax, gate, up: jax.nn.gelu(gate, approximate=False) * up,
    "ops.softmax": lambda jax, x: jax.nn.softmax(x),
    "ops.log_softmax": lambda jax, x: jax.nn.log_softmax(x),
    "ops.logsumexp": lambda jax, x: jax.nn.logsumexp(x, axis=-1),
    "ops.layer_norm": layer_norm,
    "ops.rms_norm": _rms_norm,
    "ops.linear": lambda jax, x, weight, bias: x @ weight.T + bias,
    "ops.embedding": lambda jax, weight, ids: weight[ids],
    "losses.cross_entropy": cross_entropy,
    "losses.softmax_cross_entropy": cross_entropy,
    "losses.linear_cross_entropy": lambda jax, hidden, weight, targets: cross_entropy(jax, hidden @ weight.T, targets),
    "losses.mse": lambda jax, prediction, target: jax.numpy.square(prediction - target).mean(),
    "attention.scaled_dot_product": attention,
    "attention.flash_attention": attention,
}, prepare)
