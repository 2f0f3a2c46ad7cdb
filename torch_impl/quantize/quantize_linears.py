"""A model's linear layers in four bits, one after the other."""

import fnmatch
from collections.abc import Sequence

import torch
from torch import nn

from byhand.checks import choice, demand, matching, size
from torch_impl.layers.linear import Linear
from torch_impl.quantize.linear_4bit import Kind, Linear4bit


def quantize_linears(model: nn.Module, *, targets: Sequence[str] = ("*",), exclude: Sequence[str] = ("head",), kind: Kind = "nf4",
                     block: int = 64, double: bool = False) -> list[str]:
    """Put a Linear4bit in the place of every Linear below `model` whose name `targets` take and `exclude` do not; return their names."""
    linears = {name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, Linear) and name}
    taken = matching("quantize_linears", linears, of="linear layers", targets=targets)
    patterns = isinstance(exclude, (tuple, list)) and all(isinstance(pattern, str) for pattern in exclude)
    demand("quantize_linears", patterns, "exclude as a tuple of names or patterns", exclude=exclude)
    names = [n for n in taken if not any(fnmatch.fnmatchcase(n, p) or fnmatch.fnmatchcase(n, f"*.{p}") for p in exclude)]
    choice("quantize_linears", ("nf4", "fp4"), kind=kind)
    size("quantize_linears", block=block)
    choice("quantize_linears", (False, True), double=double)
    for name in names:
        weight = linears[name].weight.detach()
        finite = weight.is_meta or weight.abs().max().item() <= torch.finfo(torch.float32).max    # NaN is not below anything
        demand("quantize_linears", finite, f"{name}.weight finite in float32", weight=weight)
    made: dict[int, Linear4bit] = {}                                            # a layer in two places stays one layer in two places
    for name in names:
        parent, _, child = name.rpartition(".")
        linear = linears.pop(name)     # popped, so that nothing here keeps the matrix alive that has just been replaced
        if id(linear) not in made:
            made[id(linear)] = Linear4bit.from_linear(linear, kind=kind, block=block, double=double)
        setattr(model.get_submodule(parent), child, made[id(linear)])
    return names
