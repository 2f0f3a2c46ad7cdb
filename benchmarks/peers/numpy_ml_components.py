"""Components in numpy-ml, whose layers and activations have hand-written derivatives in NumPy.

Its last version, 0.1.2, does not import on Python 3.10 and later: its __init__ loads everything, and a part that has nothing to do with
layers asks `collections` for Hashable, which has gone from there. The layers alone do import, and are what is measured.

With NumPy 2 some of it is float64: ReLU's derivative is made of integers, and cross-entropy adds a float64 ε.

Left out: its attention has no mask, and its softmax's derivative makes a matrix for every row, which takes seconds at these sizes.
"""

import importlib
import importlib.metadata
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers._component import Call, Given, recipes
from benchmarks.workload import Unable


def _part(name: str) -> Any:
    """A module of numpy_ml.neural_nets, loaded without what the packages above it load besides."""
    if "numpy_ml" not in sys.modules:
        root = Path(str(importlib.metadata.distribution("numpy-ml").locate_file("numpy_ml")))
        for package in ("numpy_ml", "numpy_ml.utils", "numpy_ml.neural_nets"):
            sys.modules[package] = empty = types.ModuleType(package)
            empty.__path__ = [str(root.joinpath(*package.split(".")[1:]))]
    try:
        return importlib.import_module(f"numpy_ml.neural_nets.{name}")
    except ImportError as error:
        raise Unable(f"numpy-ml does not import here: {error}") from error


def _activation(name: str) -> Callable[[Given], Call]:
    def prepare(given: Given) -> Call:
        function, x = getattr(_part("activations"), name)(), given.arrays["x"]
        return lambda dy: (function.fn(x), dy * function.grad(x))

    return prepare


def _layer(layer: Any, x: NDArray, parameters: dict[str, NDArray], gradients: bool = True) -> Call:
    """A layer with these parameters; what it remembers of the step before is flushed."""
    layer.forward(x, retain_derived=False)                             # only then it has parameters to be replaced
    layer.parameters = dict(parameters)
    layer.gradients = {name: np.zeros_like(array) for name, array in parameters.items()}

    def call(dy: NDArray) -> tuple[Any, ...]:
        layer.flush_gradients()
        y = layer.forward(x)
        dx = layer.backward(dy)
        return y, *([dx] if gradients else []), *(layer.gradients[name] for name in parameters)

    return call


def _layer_norm(given: Given) -> Call:
    x, weight, bias = given.arrays.values()
    return _layer(_part("layers").LayerNorm1D(), x, {"scaler": weight, "intercept": bias})


def _linear(given: Given) -> Call:
    x, weight, bias = given.arrays.values()
    call = _layer(_part("layers").FullyConnected(len(weight)), x, {"W": np.ascontiguousarray(weight.T), "b": bias[None]})

    def ours(dy: NDArray) -> tuple[Any, ...]:
        y, dx, dw, db = call(dy)
        return y, dx, dw.T, db[0]

    return ours


def _embedding(given: Given) -> Call:
    (weight,), ids = given.arrays.values(), given.rest["ids"]
    return _layer(_part("layers").Embedding(weight.shape[1], len(weight)), ids, {"W": weight}, gradients=False)


def _cross_entropy(given: Given) -> Call:
    """Of one-hot targets, summed over the rows."""
    (logits,), targets = given.arrays.values(), given.rest["targets"]
    softmax, loss = _part("layers").Softmax(), _part("losses").CrossEntropy()

    def call(dy: NDArray) -> tuple[Any, ...]:
        one_hot = np.zeros_like(logits)
        one_hot[np.arange(len(targets)), targets] = 1
        probabilities = softmax.forward(logits, retain_derived=False)
        return loss.loss(one_hot, probabilities) / len(targets), loss.grad(one_hot, probabilities) * (dy / len(targets)).astype(np.float32)

    return call


recipes("numpy-ml", "numpy-ml", {
    "ops.relu": _activation("ReLU"),
    "ops.sigmoid": _activation("Sigmoid"),
    "ops.tanh": _activation("Tanh"),
    "ops.softplus": _activation("SoftPlus"),
    "ops.layer_norm": _layer_norm,
    "ops.linear": _linear,
    "ops.embedding": _embedding,
    "losses.cross_entropy": _cross_entropy,
    "losses.softmax_cross_entropy": _cross_entropy,
})
