"""Components in HIPS autograd: its NumPy, differentiated by its make_vjp.

With NumPy 2 it goes over to float64 in places that the recipes avoid: in the derivatives of np.mean, np.var and np.std (a sum divided by a
Python number stays in float32), in that of np.max (the largest entry is taken from the value, as a constant), in that of np.where with a
Python number among its choices, and at np.sqrt of a Python number, which is a float64 of NumPy.
"""

import math
from collections.abc import Callable
from typing import Any

from benchmarks.peers._component import Call, Given, recipes


def prepare(recipe: Callable, given: Given) -> Call:
    """A recipe and what it is given -> dy -> y and the gradients."""
    import autograd.numpy
    from autograd.differential_operators import make_vjp

    arrays = tuple(given.arrays.values())
    differentiated = make_vjp(lambda leaves: recipe(autograd.numpy, *leaves, **given.rest))

    def both(dy: Any) -> tuple[Any, ...]:
        pullback, y = differentiated(arrays)
        return y, *pullback(dy)

    return both


def largest(x: Any) -> Any:
    """The maxima over the last axis, constants to the derivative."""
    from autograd.tracer import getval

    return getval(x).max(-1, keepdims=True)


def mean(np: Any, x: Any) -> Any:
    """The mean over the last axis."""
    return np.sum(x, axis=-1, keepdims=True) / x.shape[-1]


def softmax(np: Any, x: Any) -> Any:
    """exp x over its sum along the last axis."""
    e = np.exp(x - largest(x))
    return e / np.sum(e, axis=-1, keepdims=True)


def log_softmax(np: Any, x: Any) -> Any:
    """Its logarithm."""
    shifted = x - largest(x)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def layer_norm(np: Any, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """Over the last axis."""
    centred = x - mean(np, x)
    return centred / np.sqrt(mean(np, centred * centred) + eps) * weight + bias


def gelu_tanh(np: Any, x: Any) -> Any:
    """GELU's tanh form."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def cross_entropy(np: Any, logits: Any, targets: Any) -> Any:
    """The mean of −log softmax(logits)[target] over rows (N, V)."""
    return -np.sum(log_softmax(np, logits)[np.arange(len(targets)), targets]) / len(targets)


def attention(np: Any, query: Any, key: Any, value: Any, causal: bool = False) -> Any:
    """softmax(q kᵀ / √D) v, with a query that sees no later key where causal."""
    scores = np.matmul(query, np.swapaxes(key, -1, -2)) * (1 / math.sqrt(query.shape[-1]))
    if causal:
        scores = np.where(np.tri(query.shape[-2], key.shape[-2], dtype=bool), scores, np.array(-math.inf, dtype=np.float32))
    return np.matmul(softmax(np, scores), value)


def _erf(x: Any) -> Any:
    from autograd.scipy.special import erf

    return erf(x)


def _sigmoid(np: Any, x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu(np: Any, x: Any) -> Any:
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)))


recipes("HIPS autograd", "autograd", {
    "ops.relu": lambda np, x: np.maximum(x, 0),
    "ops.sigmoid": _sigmoid,
    "ops.tanh": lambda np, x: np.tanh(x),
    "ops.softplus": lambda np, x: np.log1p(np.exp(x)),
    "ops.gelu": _gelu,
    "ops.gelu_tanh": gelu_tanh,
    "ops.silu": lambda np, x: x * _sigmoid(np, x),
    "ops.mish": lambda np, x: x * np.tanh(np.log1p(np.exp(x))),
    "ops.swiglu": lambda np, gate, up: gate * _sigmoid(np, gate) * up,
    "ops.geglu": lambda np, gate, up: _gelu(np, gate) * up,
    "ops.softmax": softmax,
    "ops.log_softmax": log_softmax,
    "ops.logsumexp": lambda np, x: (np.log(np.sum(np.exp(x - largest(x)), axis=-1, keepdims=True)) + largest(x))[..., 0],
    "ops.layer_norm": layer_norm,
    "ops.rms_norm": lambda np, x, weight: x / np.sqrt(mean(np, x * x) + 1e-6) * weight,
    "ops.linear": lambda np, x, weight, bias: np.matmul(x, weight.T) + bias,
    "ops.embedding": lambda np, weight, ids: weight[ids],
    "losses.cross_entropy": cross_entropy,
    "losses.softmax_cross_entropy": cross_entropy,
    "losses.linear_cross_entropy": lambda np, hidden, weight, targets: cross_entropy(np, np.matmul(hidden, weight.T), targets),
    "losses.mse": lambda np, prediction, target: np.sum((prediction - target) * (prediction - target)) / prediction.size,
    "attention.scaled_dot_product": attention,
    "attention.flash_attention": attention,
}, prepare)
