"""Blocks with a mixture of experts in them, as modules with two outputs: what the router said is judged like y, its cotangent like dy."""

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
        if experts is None:
            return block
        block.mlp = side.get("layers.MoE")(init["d_model"], 3, experts, experts, dtype=side.dtype)
        return _numpy(block) if side.name == "numpy" else _torch(block)

    return build


def plain(law):
    """The law, of blocks without experts."""
    def judged(side, module, *inputs, **options):
        return iter(()) if hasattr(module, "told") else law(side, module, *inputs, **options)

    judged.__name__, judged.__doc__ = law.__name__, law.__doc__
    return judged


def _numpy(block):
    from numpy_impl.layers.module import Module

    class Telling(Module):
        def __init__(self):
            self.told = block

        def forward(self, *inputs, **options):
            y, (routing,), routed_backward = self.told.routed(*inputs, **options)

            def backward(dy, dlogits):
                *dinputs, grads = routed_backward(dy, (dlogits,))
                return *dinputs, {"told": grads}

            return Told(y, routing.logits), backward

    return Telling()


def _torch(block):
    from torch import nn

    class Telling(nn.Module):
        def __init__(self):
            super().__init__()
            self.told = block

        def forward(self, *inputs, **options):
            y, (routing,) = self.told.routed(*inputs, **options)
            return Told(y, routing.logits)

    return Telling()
