"""What every optimizer is fed: three parameters of different rank and name, and a few steps of gradients and learning rates."""

from collections.abc import Mapping
from typing import Any

from parity.cases import array, integer, one_of, size


def trajectory(draw: Any, options: Mapping[str, Any], grad_scale: Any = 1.0) -> dict[str, Any]:
    """The arguments of a run; `options` are specs of constructor arguments, those that are left out not passed."""
    shapes = {"attn.weight": (draw(size()), draw(size())), "attn.bias": (draw(size()),), "scale": ()}
    scale = draw(grad_scale)
    steps = draw(integer(1, 6))
    return dict(
        init=dict(lr=draw(one_of(1.0, 0.1, 0.003)), **{name: draw(spec) for name, spec in options.items()}),
        params={name: array(*shape) for name, shape in shapes.items()},
        grads=[{name: array(*shape, scale=scale) for name, shape in shapes.items()} for _ in range(steps)],
        lrs=[draw(one_of(None, 0.5, 0.02, 0.0)) for _ in range(steps)],
    )


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
