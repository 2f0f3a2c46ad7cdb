"""What every optimizer is fed: three parameters of different rank and name, and a few steps of gradients and learning rates."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from parity.cases import array, integer, one_of, size


def trajectory(draw: Any, options: Mapping[str, Any], grad_scale: Any = 1.0) -> dict[str, Any]:
    """The arguments of a run; `options` are specs of constructor arguments, those that are left out not passed."""
    length = draw(size() if draw.ordinary else one_of(1, 0, 5, 40_000))  # none at all, and more than is worked on at once
    shapes = {"attn.weight": (draw(size()), draw(size())), "attn.bias": (length,), "scale": ()}
    scale = draw(grad_scale)
    steps = draw(integer(1, 6))
    return dict(
        init=dict(lr=draw(one_of(1.0, 0.1, 0.003)), **{name: draw(spec) for name, spec in options.items()}),
        params={name: array(*shape) for name, shape in shapes.items()},
        grads=[{name: array(*shape, scale=scale) for name, shape in shapes.items()} for _ in range(steps)],
        lrs=[draw(one_of(None, 0.5, 0.02, 0.0)) for _ in range(steps)],
    )


def bench(**options: Any) -> dict[str, Any]:
    """What benchmarks time: one step of the parameters of a feed-forward layer, 4.7 million of them."""
    shapes = {"up.weight": (3072, 768), "up.bias": (3072,), "down.weight": (768, 3072), "down.bias": (768,)}
    arrays = {name: array(*shape) for name, shape in shapes.items()}
    return dict(init=dict(lr=1e-3, **options), params=arrays, grads=[arrays])


def refused(init: Mapping[str, Any], grads: Mapping[str, Any] | None = None, lr: float | None = None) -> dict[str, Any]:
    """One step of two parameters that should not be taken."""
    params = {"w": array(2, 3), "w.bias": array(3)}
    return dict(init={"lr": 0.1} | dict(init), params=params, grads=[params if grads is None else grads], lrs=[lr])


def refused_by_all() -> list[dict[str, Any]]:
    """What is refused whatever the formula is."""
    w, bias, nan, inf = array(2, 3), array(3), float("nan"), float("inf")
    return [
        refused({"lr": -0.1}),
        refused({"lr": nan}),
        refused({"lr": inf}),
        refused({"weight_decay": -0.1}),
        refused({"weight_decay": inf}),
        refused({"maximize": "yes"}),
        refused({}, lr=-0.1),
        refused({}, lr=nan),
        refused({}, {"w": w}),
        refused({}, {"w": w, "w.bias": bias, "w.bia": bias}),
        refused({}, {"w": w, "w.bais": bias}),
        refused({}, {"w": array(3, 2), "w.bias": bias}),
        refused({}, {"w": w, "w.bias": array(1)}),
        refused({"groups": [{"weight_decay": 0.0}]}),
        refused({"groups": [{"pattern": "*.bais"}]}),
        refused({"groups": [{"pattern": "*"}, {"pattern": "w"}]}),
        refused({"groups": [{"pattern": "*.bias", "weigth_decay": 0.0}]}),
        refused({"groups": [{"pattern": "*.bias", "lr": 0.1}]}),
        refused({"groups": [{"pattern": "*.bias", "lr_scale": -1.0}]}),
        refused({"groups": [{"pattern": "*.bias", "weight_decay": -1.0}]}),
        dict(init={"lr": 0.1}, params={}, grads=[]),
    ]


def resumes(name: str) -> Callable[..., Iterator[tuple[str, Any, Any]]]:
    """A run that is stopped in the middle and goes on from what was saved ends where the whole run ends."""

    def resumed(side: Any, init: Mapping[str, Any], params: Mapping[str, Any], grads: list, lrs: list) -> Iterator[tuple[str, Any, Any]]:
        make = side.get(name)
        whole, parts = _copied(side, params), _copied(side, params)
        straight, first = make(whole, **init), make(parts, **init)
        half = len(grads) // 2
        for step, (grad, lr) in enumerate(zip(grads, lrs, strict=True)):
            straight.step(grad, lr=lr)
            if step < half:
                first.step(grad, lr=lr)
        second = make(parts, **init)
        second.load_state_dict(_copied(side, first.state_dict()))
        for grad, lr in zip(grads[half:], lrs[half:], strict=True):
            second.step(grad, lr=lr)
        yield from ((f"{key} after resuming", parts[key], whole[key]) for key in whole)
        yield from ((f"state {key} after resuming", value, straight.state_dict()[key]) for key, value in second.state_dict().items())

    return resumed


def moments(name: str) -> Callable[..., Iterator[tuple[str, Any, Any]]]:
    """After one step both moments tell the gradient: m / (1 − β₁) is it and v / (1 − β₂) its square."""

    def first_moments(
        side: Any, init: Mapping[str, Any], params: Mapping[str, Any], grads: list, lrs: list
    ) -> Iterator[tuple[str, Any, Any]]:
        optimizer = side.get(name)(_copied(side, params), lr=init["lr"], betas=(0.9, 0.75), weight_decay=0.0)
        optimizer.step(grads[0])
        state = optimizer.state_dict()
        for key, grad in grads[0].items():
            yield f"{key}.exp_avg", state[f"{key}.exp_avg"], 0.1 * grad
            yield f"{key}.exp_avg_sq", state[f"{key}.exp_avg_sq"], 0.25 * grad * grad

    return first_moments


def _copied(side: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: side.array(np.array(side.numpy(array))) for name, array in arrays.items()}
