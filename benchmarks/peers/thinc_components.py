"""Components in thinc: its NumpyOps, partly compiled, and its layers.

Left out: its cross-entropy, which tells the squared length of the gradient where others tell the loss.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers._component import Call, Given, recipes


def _ops() -> Any:
    from thinc.api import NumpyOps

    return NumpyOps()


def _of_x(name: str) -> Callable[[Given], Call]:
    """An activation whose derivative is told x."""
    def prepare(given: Given) -> Call:
        ops, x = _ops(), given.arrays["x"]
        forward, backward = getattr(ops, name), getattr(ops, f"backprop_{name}")
        return lambda dy: (forward(x), backward(dy, x))

    return prepare


def _of_y(name: str) -> Callable[[Given], Call]:
    """An activation whose derivative is told y."""
    def prepare(given: Given) -> Call:
        ops, x = _ops(), given.arrays["x"]
        forward, backward = getattr(ops, name), getattr(ops, f"backprop_{name}")

        def call(dy: NDArray) -> tuple[Any, ...]:
            y = forward(x)
            return y, backward(dy, y)

        return call

    return prepare


def _swish(given: Given) -> Call:
    ops, x = _ops(), given.arrays["x"]

    def call(dy: NDArray) -> tuple[Any, ...]:
        y = ops.swish(x)
        return y, ops.backprop_swish(dy, x, y)

    return call


def _softmax(given: Given) -> Call:
    ops, x = _ops(), given.arrays["x"]

    def call(dy: NDArray) -> tuple[Any, ...]:
        y = ops.softmax(x)
        return y, ops.backprop_softmax(y, dy)

    return call


def _layer(model: Any, x: NDArray, parameters: dict[str, NDArray]) -> Call:
    """A layer with these parameters; gradients, which add up in it, are set to zero first."""
    model.initialize()
    for name, array in parameters.items():
        model.set_param(name, array)

    def call(dy: NDArray) -> tuple[Any, ...]:
        for name in parameters:
            if model.has_grad(name):
                model.get_grad(name).fill(0)
        y, backprop = model(x, is_train=True)
        dx = backprop(dy)
        return y, dx, *(model.get_grad(name) for name in parameters)

    return call


def _layer_norm(given: Given) -> Call:
    """Its ε is 1e-8."""
    from thinc.api import LayerNorm

    x, weight, bias = given.arrays.values()
    return _layer(LayerNorm(x.shape[1]), x, {"G": weight, "b": bias})


def _linear(given: Given) -> Call:
    from thinc.api import Linear

    x, weight, bias = given.arrays.values()
    return _layer(Linear(*weight.shape), x, {"W": weight, "b": bias})


def _embedding(given: Given) -> Call:
    """Of one row of ids."""
    from thinc.api import Embed

    (weight,), ids = given.arrays.values(), given.rest["ids"]
    call = _layer(Embed(weight.shape[1], len(weight)), ids.reshape(-1).astype(np.int32), {"E": weight})

    def ours(dy: NDArray) -> tuple[Any, ...]:
        y, _, dweight = call(dy.reshape(-1, dy.shape[-1]))
        return y.reshape(dy.shape), dweight

    return ours


recipes("thinc", "thinc", {
    "ops.relu": _of_y("relu"),
    "ops.sigmoid": _of_y("sigmoid"),
    "ops.gelu": _of_x("gelu"),
    "ops.gelu_tanh": _of_x("gelu_approx"),
    "ops.silu": _swish,
    "ops.mish": _of_x("mish"),
    "ops.softmax": _softmax,
    "ops.layer_norm": _layer_norm,
    "ops.linear": _linear,
    "ops.embedding": _embedding,
})
