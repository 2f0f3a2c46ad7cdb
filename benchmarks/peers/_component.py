"""Components in other libraries: a recipe for each, fed the arrays that all columns get."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components import inputs
from benchmarks.workload import Size, Work, peer
from parity.registry import find
from parity.sides import Side, differentiable, run


@dataclasses.dataclass(frozen=True)
class Given:
    """What a component is given: the arrays it is differentiated by, in the order of its signature, and the rest by name."""

    arrays: dict[str, NDArray]
    rest: dict[str, Any]

    @property
    def gradients(self) -> list[str]:
        """Their labels: dx, dweight, …"""
        return [f"d{name}" for name in self.arrays]


def given(name: str, size: Size) -> Given:
    """The arrays of a component at a size of benchmark, floats in float32."""
    every = inputs(name, size)
    slots = [slot for slot, is_given in differentiable(find(name), every, None) if is_given]
    return Given({slot: every[slot] for slot in slots}, {key: value for key, value in every.items() if key not in slots})


def cotangent(shape: tuple[int, ...]) -> NDArray:
    """What numbers are compared with: no two entries alike, since a softmax gives ones the gradient 0 and rounding would be compared."""
    return np.cos(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape)


def reference(name: str, size: Size) -> dict[str, NDArray]:
    """The same numbers from this repository's NumPy side: outputs, and gradients for `cotangent`."""
    component, side = find(name), Side("numpy", "float32")
    found = run(component, side, inputs(name, size), {}, lambda _, shape: cotangent(shape))
    return {label: np.asarray(value) for label, _, value in found.labelled() if value is not None}


Call = Callable[[NDArray], tuple[Any, ...]]         # dy -> y, and the gradient of every array


def recipes(library: str, needs: str, functions: Mapping[str, Callable],
            prepare: Callable[[Callable, Given], Call] = lambda function, what: function(what)) -> None:
    """Register a library for every component it has a recipe for.

    prepare : a recipe and what the component is given -> a call that does the work once, forward and backward. It returns y too: a
        compiler leaves out what nobody asks for, and NumPy's side computes both. For the same reason dy is an argument.
    """
    for name, function in functions.items():
        peer(library, of=name, needs=needs)(functools.partial(_build, name, function, prepare))


def _build(name: str, function: Callable, prepare: Callable[[Callable, Given], Call], *, size: Size) -> Work:
    what = given(name, size)
    call = prepare(function, what)
    shape = find(name).implementation("numpy")(*what.arrays.values(), **what.rest)[0].shape
    ones = np.ones(shape, dtype=np.float32)

    def numbers() -> dict[str, NDArray]:
        found = zip(["y", *what.gradients], call(cotangent(shape)), strict=True)
        return {label: np.array(value) for label, value in found}              # copies: some libraries use their arrays again

    return Work(lambda: call(ones), numbers=numbers)
