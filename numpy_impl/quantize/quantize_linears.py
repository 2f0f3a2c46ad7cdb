"""A model's linear layers in four bits, one after the other."""

import fnmatch
from collections.abc import Sequence

import numpy as np

from byhand.checks import choice, demand, matching, size
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.quantize.linear_4bit import Kind, Linear4bit


def quantize_linears(model: Module, *, targets: Sequence[str] = ("*",), exclude: Sequence[str] = ("head",), kind: Kind = "nf4",
                     block: int = 64, double: bool = False) -> list[str]:
    """Put a Linear4bit in the place of every Linear below `model` whose name is taken, one at a time; the others stay as they are.

    Parameters
    ----------
    model : Module       changed in place
    targets : tuple      names or shell patterns, which take a dotted name whole or from a dot on: ``("q_proj", "blocks.*.mlp.*")``
    exclude : tuple      the same, of names that are not taken; the head is usually left in full precision
    kind, block, double  as in `Linear4bit`

    Returns
    -------
    names : list of str   of the layers that were replaced

    Raises
    ------
    ValueError   if a target takes no Linear, a weight is not finite or an option is out of range; nothing has been replaced then

    Examples
    --------
    >>> from numpy_impl.layers.feed_forward import FeedForward
    >>> mlp = FeedForward(8, 32)
    >>> quantize_linears(mlp, targets=("up_proj",)), type(mlp.up_proj).__name__
    (['up_proj'], 'Linear4bit')
    """
    linears = {name: module for name, module in model.modules() if isinstance(module, Linear)}
    taken = matching("quantize_linears", linears, of="linear layers", targets=targets)
    patterns = isinstance(exclude, (tuple, list)) and all(isinstance(pattern, str) for pattern in exclude)
    demand("quantize_linears", patterns, "exclude as a tuple of names or patterns", exclude=exclude)
    names = [n for n in taken if not any(fnmatch.fnmatchcase(n, p) or fnmatch.fnmatchcase(n, f"*.{p}") for p in exclude)]
    choice("quantize_linears", ("nf4", "fp4"), kind=kind)
    size("quantize_linears", block=block)
    choice("quantize_linears", (False, True), double=double)
    for name in names:
        weight = linears[name].weight
        largest = max(float(weight.max()), -float(weight.min()))            # a NaN is not below anything
        demand("quantize_linears", largest <= np.finfo(np.float32).max, f"{name}.weight finite in float32", weight=weight)
    made: dict[int, Linear4bit] = {}                                        # a layer in two places stays one layer in two places
    for name in names:
        linear = linears.pop(name)     # popped, so that nothing here keeps the matrix alive that has just been replaced
        if id(linear) not in made:
            made[id(linear)] = Linear4bit.from_linear(linear, kind=kind, block=block, double=double)
        model.replace_child(name, made[id(linear)])
    return names
