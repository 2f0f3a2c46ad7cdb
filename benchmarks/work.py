"""What is timed: a component's forward and backward, or a whole training step, on either side, as a function of no arguments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from parity.registry import Component, components, find
from parity.sides import Side, arguments, differentiable, flatten, is_float

Call = Callable[[], Any]


@dataclasses.dataclass
class Work:
    """One workload prepared for one side.

    run : the work on arrays that are already there;  with_transfers : the same from host arrays to host gradients (CUDA only)
    """

    run: Call
    with_transfers: Call | None = None


def component_names() -> list[str]:
    """Every registered component with something to time: ops, values of array size, and modules."""
    return [c.name for c in components().values() if c.kind in ("op", "module") or (c.kind == "value" and c.bench is not None)]


def component_work(name: str, side_name: str, device: str) -> Work:
    """Forward and backward of a component in float32 on its large example."""
    component = find(name)
    example = component.large()
    inputs, _ = example.fill()
    side = Side(side_name, "float32", device)
    if component.kind == "module":
        fresh = Side("numpy", "float32").module(component, inputs["init"])  # initial weights, as in the first step of a training
        module = side.module(component, inputs["init"], fresh.state_dict())
        call = side.tree(inputs.get("call", {}))
        return _differentiated(component, side, module.forward if side_name == "numpy" else module, call, module)
    call = side.tree(dict(inputs))
    function = side.implementation(component)
    if component.kind == "value":
        args, options = arguments(component.implementation("numpy"), call)
        return Work(lambda: function(*args, **options))
    return _differentiated(component, side, function, call, None)


def _differentiated(component: Component, side: Side, function: Callable, call: dict[str, Any], module: Any) -> Work:
    slots = [name for name, given in differentiable(component, call, module) if given]
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
        shapes = {k: torch.ones_like(v) for k, v in flatten(function(*args, **options)).items() if is_float(v)}
    cotangents = {k: v for k, v in shapes.items() if k not in component.detached}

    def torch_step() -> Any:
        y = flatten(function(*args, **options))
        return torch.autograd.grad([y[k] for k in cotangents], leaves, list(cotangents.values()), allow_unused=True)

    if side.device == "cpu":
        return Work(torch_step)
    hosts = {name: call[name].detach().cpu().pin_memory() for name in slots}

    def with_transfers() -> Any:
        with torch.no_grad():
            for name, host in hosts.items():
                call[name].copy_(host, non_blocking=True)
        return [g if g is None else g.cpu() for g in torch_step()]

    return Work(torch_step, with_transfers)


def train_step(side_name: str, device: str, *, model: dict[str, Any], batch: int, fused: bool) -> Work:
    """One step of a GPT: forward, backward and AdamW, in float32, without dropout; torch's AdamW `fused`, or as it is by default."""
    from byhand.configs.gpt2 import GPT2Config

    config = GPT2Config(**model, dropout=0.0)
    ids = np.random.default_rng(0).integers(0, config.vocabulary, (batch, config.max_length + 1))
    source = find("models.GPT2").implementation("numpy")(config, rng=np.random.default_rng(0))
    if side_name == "numpy":
        from numpy_impl.layers.module import flatten as flatten_grads
        from numpy_impl.optim.adamw import AdamW

        optimizer = AdamW(source.parameters(), lr=1e-3)

        def numpy_step() -> Any:
            loss, backward = source.loss(ids[:, :-1], ids[:, 1:])
            optimizer.step(flatten_grads(backward()))
            return loss

        return Work(numpy_step)
    import torch

    twin = find("models.GPT2").implementation("torch")(config).to(device)
    twin.load_state_dict({k: torch.from_numpy(v) for k, v in source.state_dict().items()})
    adamw = torch.optim.AdamW(twin.parameters(), lr=1e-3, fused=fused or None)
    tokens = torch.from_numpy(ids).to(device)

    def torch_step() -> Any:
        loss = twin.loss(tokens[:, :-1], tokens[:, 1:])
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        adamw.step()
        return loss

    if device == "cpu":
        return Work(torch_step)
    host = torch.from_numpy(ids).pin_memory()

    def with_transfers() -> Any:
        tokens.copy_(host, non_blocking=True)
        return torch_step().item()

    return Work(torch_step, with_transfers)


_SMALL = {"d_model": 256, "n_layers": 4, "n_heads": 4, "max_length": 128, "vocabulary": 4096}
_LARGER = {"d_model": 384, "n_layers": 6, "n_heads": 6, "max_length": 256, "vocabulary": 4096}
TRAIN: dict[str, dict[str, Any]] = {
    "GPT d256 L4 H4 T128 B8 V4096, torch's AdamW fused": {"model": _SMALL, "batch": 8, "fused": True},
    "GPT d256 L4 H4 T128 B8 V4096, torch's AdamW default": {"model": _SMALL, "batch": 8, "fused": False},
    "GPT d384 L6 H6 T256 B4 V4096, torch's AdamW fused": {"model": _LARGER, "batch": 4, "fused": True},
}


def prepare(name: str, side_name: str, device: str) -> Work:
    """A component or a training step by its name."""
    if name in TRAIN:
        return train_step(side_name, device, **TRAIN[name])
    return component_work(name, side_name, device)
