"""The attention weights of any model on the NumPy side, layer by layer, head by head: what `byhand draw attention` draws.

No model keeps its weights, and none has to be written otherwise to show them. While a model runs, the functions of the room `attention` are
replaced, in the files that import them, by ones that also tell what they were called with. From there the weights P follow:

- where the call is plain softmax attention, `attention.attention_weights` makes them from the same query, key, bias and mask;
- whatever else the function is (linear, sparse, with sinks …), its output is P · value, so that with the identity matrix as value the same
  function gives P itself.

Either way P · value must be what the model went on with, or the weights are refused: no picture shows what was not computed.
"""

import contextlib
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from numpy_impl import attention
from numpy_impl.attention.attention_weights import attention_weights
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.layers.module import Module

_ROOMS = ("numpy_impl.layers.", "numpy_impl.models.")  # whose files call the room attention


class AttentionMap(NamedTuple):
    """layer : the dotted name of the attention layer; weights : (H, T, S), row t is how query t weighs the keys."""

    layer: str
    weights: NDArray


def attention_maps(model: Module, *inputs: Any, **options: Any) -> list[AttentionMap]:
    """The weights of every attention layer in model(*inputs, **options), in the order in which they ran, for a batch of one.

    Raises
    ------
    ValueError   if the batch holds more than one sequence, no layer attends, or a layer's output is no weighted sum of its values

    Examples
    --------
    >>> from numpy_impl.layers.multi_head_attention import MultiHeadAttention
    >>> layer = MultiHeadAttention(4, 2, rng=np.random.default_rng(0))
    >>> (found,) = attention_maps(layer, np.ones((1, 3, 4), np.float32), causal=True)      # equal tokens: equal weights
    >>> found.weights[0].round(2)
    array([[1.  , 0.  , 0.  ],
           [0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]], dtype=float32)
    """
    maps: list[AttentionMap] = []
    where: list[str] = []

    def told(function: Callable, call: inspect.BoundArguments, y: NDArray) -> None:
        weights = _weights(function, call)
        value = call.arguments["value"]
        *lead, t, s = weights.shape
        demand("attention_maps", len(lead) > 1 and lead[0] == 1, "a batch of one sequence", weights=weights)
        layer = where[-1] or type(model).__name__
        summed = _sum(weights, value)
        if summed is None or not np.allclose(summed, y, rtol=0, atol=1e-5 * max(1.0, float(np.abs(y).max(initial=0)))):
            raise ValueError(f"attention_maps needs layers whose output is a weighted sum of their values; {layer} is none")
        maps.append(AttentionMap(layer, weights.reshape(-1, t, s)))

    with _naming(model, where), _listening(told):
        model(*inputs, **options)
    demand("attention_maps", bool(maps), "a model that attends", model=type(model).__name__)
    return maps


def _weights(function: Callable, call: inspect.BoundArguments) -> NDArray:
    """(..., H, T, S): P of this call."""
    given = call.arguments
    if function is scaled_dot_product:
        return attention_weights(**{name: value for name, value in given.items() if name not in ("value", "dropout", "noise")})[0]
    keys = given["key"].shape[-2]
    identity = np.broadcast_to(np.eye(keys, dtype=given["value"].dtype), (*given["value"].shape[:-2], keys, keys))
    return function(**given | {"value": identity})[0]


def _sum(weights: NDArray, value: NDArray) -> NDArray | None:
    """P · value, where a value may serve several heads; None where the shapes do not fit at all."""
    lead, own = weights.shape[:-2], value.shape[:-2]
    if lead != own:
        own = own if len(own) == len(lead) else (*own, 1)          # one value for all heads has no axis of heads
        if len(own) != len(lead) or any(b == 0 or a % b for a, b in zip(lead, own, strict=True)):
            return None
        value = value.reshape(*own, *value.shape[-2:])
        for axis, (a, b) in enumerate(zip(lead, own, strict=True)):
            value = value.repeat(a // b, axis)                     # head h reads value h · K // H
    return weights @ value if weights.shape[-1] == value.shape[-2] else None


@contextlib.contextmanager
def _naming(model: Module, where: list[str]) -> Iterator[None]:
    """While it lasts, the last entry of `where` is the dotted name of the module that is running."""
    modules = list(_modules(model, ""))
    for name, module in modules:
        module.forward = _named(module.forward, name, where)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for _, module in modules:
            del module.forward                                     # the class's own comes back into view


def _named(forward: Callable, name: str, where: list[str]) -> Callable:
    @functools.wraps(forward)
    def named(*inputs: Any, **options: Any) -> Any:
        where.append(name)
        try:
            return forward(*inputs, **options)
        finally:
            where.pop()

    return named


def _modules(module: Module, name: str) -> Iterator[tuple[str, Module]]:
    yield name, module
    for child_name, child in module.children():
        yield from _modules(child, f"{name}.{child_name}" if name else child_name)


@contextlib.contextmanager
def _listening(told: Callable[[Callable, inspect.BoundArguments, NDArray], None]) -> Iterator[None]:
    """While it lasts, every call of an attention function from a layer or a model also calls told(function, its arguments, its output)."""
    functions = _attention_functions()
    places = [(module, name, value) for module_name, module in list(sys.modules.items()) if module_name.startswith(_ROOMS)
              for name, value in vars(module).items() if inspect.isfunction(value) and value in functions]
    for module, name, function in places:
        setattr(module, name, _telling(function, told))
    try:
        yield
    finally:
        for module, name, function in places:
            setattr(module, name, function)


def _telling(function: Callable, told: Callable) -> Callable:
    @functools.wraps(function)
    def telling(*arguments: Any, **options: Any) -> Any:
        y, backward = function(*arguments, **options)
        told(function, inspect.signature(function).bind(*arguments, **options), y)
        return y, backward

    return telling


def _attention_functions() -> set[Callable]:
    """The public functions of the room attention that take query, key and value."""
    found = set()
    for info in pkgutil.iter_modules(attention.__path__, "numpy_impl.attention."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            public = not name.startswith("_") and inspect.isfunction(value) and value.__module__ == info.name
            if public and list(inspect.signature(value).parameters)[:3] == ["query", "key", "value"]:
                found.add(value)
    return found
