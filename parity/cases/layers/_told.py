"""Blocks with a mixture of experts in them, as modules with two outputs: what the router said is judged like y, its cotangent like dy."""

import inspect
from typing import Any, NamedTuple


class Told(NamedTuple):
    """y, and the logits of the only router."""

    y: Any
    logits: Any


def with_experts(name):
    """What builds component `name`, and where `experts` are drawn one with that many in its mlp's place.

    A token goes to all of them, so that no rounding makes another choice.
    """
    def build(side, *, experts=None, **init):
        block = side.get(name)(**init, dtype=side.dtype)
        if experts is not None:
            block.mlp = side.get("layers.MoE")(init["d_model"], 3, experts, experts, dtype=side.dtype)
            block.__class__ = _numpy(type(block)) if side.name == "numpy" else _torch(type(block))
        return block

    return build


def plain(law):
    """The law, of blocks without experts."""
    def judged(side, module, *inputs, **options):
        return iter(()) if hasattr(module.mlp, "router") else law(side, module, *inputs, **options)

    judged.__name__, judged.__doc__ = law.__name__, law.__doc__
    return judged


def _numpy(kind):
    def forward(self, *inputs, **options):
        y, (routing,), backward = self.routed(*inputs, **options)
        return Told(y, routing.logits), lambda dy, dlogits: backward(dy, (dlogits,))

    return _like(kind, forward)


def _torch(kind):
    def forward(self, *inputs, **options):
        y, (routing,) = self.routed(*inputs, **options)
        return Told(y, routing.logits)

    return _like(kind, forward)


def _like(kind, forward):
    """The class with another forward of the same signature."""
    forward.__signature__ = inspect.signature(kind.forward)
    return type(kind.__name__, (kind,), {"forward": forward})
