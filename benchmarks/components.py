"""Every registered component as a row: forward and backward in float32 on the large example of its case, on either side.

Values without a gradient run forward only, optimizers take their steps, initialisers draw, and what a case plays is played.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.workload import Column, Row, Size, Unable, Work
from parity.registry import Component, components, find
from parity.sides import Side, arguments, differentiable, flatten, is_float, sample
from parity.values import Example, Filled, Large, walk

SCALE: dict[Size, float] = {"small": 1 / 8, "medium": 1, "large": 4}


def rows(size: Size) -> list[Row]:
    """A row for each component."""
    return [Row(name, "components", c.room, functools.partial(_build, name, size), {}) for name, c in components().items()]


def inputs(name: str, size: Size = "medium") -> dict[str, Any]:
    """What a component is given at a size: NumPy arrays, floats in float32."""
    return Side("numpy", "float32").tree(_filled(name, size))


def shapes(name: str, size: Size = "medium") -> str:
    """The shapes of its largest arrays, for people: "x (4096, 768), weight (768,)"."""
    arrays = [(label, value) for label, value in walk(_filled(name, size)) if isinstance(value, np.ndarray) and value.ndim]
    largest = sorted(arrays, key=lambda item: -item[1].size)[:3]
    return ", ".join(f"{label.split('.')[-1]} {value.shape}" for label, value in largest)


@functools.lru_cache(maxsize=1)
def _filled(name: str, size: Size) -> dict[str, Any]:
    """The example at a size; where a case's own example does not bear another one, as it is."""
    component = find(name)
    if size == "medium":
        return component.large().fill()[0]
    if component.bench is None:
        return _fill(name, component.draw(_Scaled(size)))
    for factor in (SCALE[size], SCALE[size] ** 0.5):
        try:
            filled = _fill(name, _scaled(component.bench, factor))
            _prepare(component, Side("numpy", "float32"), filled).run()
            return filled
        except (ValueError, TypeError, IndexError):
            continue
    return component.large().fill()[0]


def _fill(name: str, structure: Mapping[str, Any]) -> dict[str, Any]:
    return Example(f"{name}/large", True, structure).fill()[0]


class _Scaled(Large):
    """The simplest choices, with fewer or more rows."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.shape = (int(Large.shape[0] * SCALE[size]), Large.shape[1])


def _scaled(bench: Any, factor: float) -> Any:
    """The example with the first dimension of its first array scaled, wherever an array begins with that number.

    That is the batch in almost every case. Where it means something else, the component refuses the arrays, and the example stays as it is.
    """
    first = next((value.shape[0] for _, value in walk(bench) if isinstance(value, Filled) and value.shape), None)
    if first is None:
        return bench

    def change(value: Any) -> Any:
        if isinstance(value, Filled) and value.shape and value.shape[0] == first:
            return dataclasses.replace(value, shape=(max(1, round(first * factor)), *value.shape[1:]))
        if isinstance(value, dict):
            return {name: change(item) for name, item in value.items()}
        return value

    return change(bench)


def _build(name: str, size: Size, column: Column) -> Work:
    component = find(name)
    return _prepare(component, Side(column.side, "float32", column.device), _filled(name, size))


def _prepare(component: Component, side: Side, given: dict[str, Any]) -> Work:
    kind = component.kind
    if kind == "play":
        assert component.play is not None
        play = component.play
        return Work(lambda: play(side, **given))
    if kind == "initialiser":
        if side.device != "cpu":
            raise Unable("numbers are drawn on the CPU")
        return Work(lambda: sample(component, side, given, seed=0))
    if kind == "optimizer":
        return _steps(component, side, given)
    if kind == "module":
        fresh = Side("numpy", "float32").module(component, given["init"])    # initial weights, as in the first step of a training
        module = side.module(component, given["init"], fresh.state_dict())
        function = module.forward if side.name == "numpy" else module
        return _differentiated(component, side, function, side.tree(given.get("call", {})), module)
    call, function = side.tree(dict(given)), side.implementation(component)
    if kind == "value":
        args, options = arguments(component.implementation("numpy"), call)
        return Work(lambda: function(*args, **options), bytes=_bytes(call) * 2)
    return _differentiated(component, side, function, call, None)


def _steps(component: Component, side: Side, given: dict[str, Any]) -> Work:
    """The steps of an optimizer on parameters that it keeps changing."""
    params = side.tree(dict(given["params"]))
    gradients = [side.tree(dict(grads)) for grads in given["grads"]]
    optimizer = side.implementation(component)(params, **given["init"])
    rates = given.get("lrs") or [None] * len(gradients)

    def run() -> None:
        for grads, lr in zip(gradients, rates, strict=True):
            optimizer.step(grads, lr=lr)

    run()                                              # from here on it has its state: read and written like the parameters
    state = optimizer.state_dict()
    return Work(run, bytes=len(gradients) * (2 * _bytes(params) + _bytes(gradients[0]) + 2 * _bytes(state)))


def _differentiated(component: Component, side: Side, function: Callable, call: dict[str, Any], module: Any) -> Work:
    slots = [name for name, is_given in differentiable(component, call, module) if is_given]
    signature = component.implementation("numpy") if module is None else type(module).forward
    if side.name == "numpy":
        args, options = arguments(signature, call)
        y, _ = function(*args, **options)
        dys = [np.ones_like(v) for k, v in flatten(y).items() if is_float(v) and k not in component.detached]

        def numpy_step() -> Any:
            return function(*args, **options)[1](*dys)

        return Work(numpy_step)
    import torch

    for name in slots:
        call[name].requires_grad_(True)
    args, options = arguments(signature, call)
    leaves = [call[name] for name in slots] + ([p for p in module.parameters() if p.requires_grad] if module is not None else [])
    with torch.no_grad():
        ones = {k: torch.ones_like(v) for k, v in flatten(function(*args, **options)).items() if is_float(v)}
    cotangents = {k: v for k, v in ones.items() if k not in component.detached}

    def torch_step() -> Any:
        y = {k: v for k, v in flatten(function(*args, **options)).items() if k in cotangents and v.requires_grad}
        return torch.autograd.grad(list(y.values()), leaves, [cotangents[k] for k in y], allow_unused=True) if y and leaves else y

    # each operand, result, cotangent and gradient once, what is frozen or not differentiated as an operand alone
    fixed = [p for p in module.parameters() if not p.requires_grad] + list(module.buffers()) if module is not None else []
    fixed += [v for name, v in call.items() if name not in slots and hasattr(v, "nbytes")]
    least = 2.0 * (sum(leaf.nbytes for leaf in leaves) + sum(v.nbytes for v in ones.values())) + sum(v.nbytes for v in fixed)
    if side.device == "cpu":
        return Work(torch_step, bytes=least)
    hosts = {name: call[name].detach().cpu().pin_memory() for name in slots}

    def with_transfers() -> Any:
        with torch.no_grad():
            for name, host in hosts.items():
                call[name].copy_(host, non_blocking=True)
        return [g if g is None else g.cpu() for g in torch_step()]

    return Work(torch_step, with_transfers, bytes=least)


def _bytes(call: Any) -> float:
    return float(sum(value.nbytes for _, value in walk(call) if hasattr(value, "nbytes")))

