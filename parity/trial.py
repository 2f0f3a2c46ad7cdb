"""One example run in every way that the laws ask for, each way once.

A `Reference` holds what does not depend on the NumPy side under test: the filled values, torch's results in both precisions, and how
much they move when the inputs move a little. A `Trial` adds one NumPy implementation. Mutants share the References of their component.
"""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import gates
from parity.registry import Component
from parity.sides import Outcome, Side, is_float, run
from parity.values import Example, Filled, array, key_rng, rebuild


class Reference:
    """The trusted side of one example.

    Attributes
    ----------
    inputs, state : float64 NumPy values that float32 can hold
    exact, single : torch's Outcome in float64 and in float32
    """

    def __init__(self, component: Component, example: Example, device: str = "cpu"):
        self.component, self.example, self.device = component, example, device
        self.inputs, self.state = example.fill(state_specs(component, example))
        self._cotangents: dict[str, NDArray] = {}

    def cotangent(self, label: str, shape: tuple[int, ...]) -> NDArray:
        """The random dy of one output, keyed by (example, output)."""
        if label not in self._cotangents or self._cotangents[label].shape != shape:
            values = key_rng(self.example.key, "cotangent", label).standard_normal(shape)
            self._cotangents[label] = np.asarray(values, dtype=np.float32).astype(np.float64)
        return self._cotangents[label]

    @functools.cached_property
    def exact(self) -> Outcome:
        return run(self.component, Side("torch", "float64", self.device), self.inputs, self.state, self.cotangent)

    @functools.cached_property
    def single(self) -> Outcome:
        return run(self.component, Side("torch", "float32", self.device), self.inputs, self.state, self.cotangent)

    @functools.cached_property
    def cotangent_scale(self) -> float:
        self.exact  # noqa: B018  (the run draws the cotangents)
        return max((gates.largest(c) for c in self._cotangents.values()), default=0.0)

    def role(self, label: str) -> str:
        return "gradient" if label in self.exact.gradients else "forward"

    def value(self, label: str, outcome: Outcome | None = None) -> Any:
        outcome = outcome or self.exact
        return outcome.gradients[label] if label in outcome.gradients else outcome.outputs[label]

    def change(self, label: str, delta: float) -> float:
        """D(δ): the largest change of R under three random relative perturbations of inputs, state and cotangents."""
        want = self.value(label)
        return max((_gap(self.value(label, near), want) for near in self._neighbours(delta)), default=0.0)

    def torch_error(self, label: str) -> float:
        """E: the largest error of torch in float32 against float64, over the example and three neighbours (δ = 8u)."""
        pairs = [(self.single, self.exact), *self._single_neighbours]
        errors = []
        for single, exact in pairs:
            got, want = self.value(label, single), self.value(label, exact)
            overflowed = np.isfinite(want) & ~np.isfinite(got)
            errors.append(math.inf if overflowed.any() else _gap(got, want))
        return max(errors)

    @functools.lru_cache(maxsize=4)  # noqa: B019  (a Reference is short-lived)
    def _neighbours(self, delta: float) -> list[Outcome]:
        side = Side("torch", "float64", self.device)
        outcomes = [run(self.component, side, *self._perturbed(delta, i)) for i in range(3)]
        return [near for near in outcomes if _same_choices(near, self.exact)]

    @functools.cached_property
    def _single_neighbours(self) -> list[tuple[Outcome, Outcome]]:
        pairs = []
        for i in range(3):
            moved = self._perturbed(8 * gates.U32, i, rounded=True)
            single, exact = (run(self.component, Side("torch", p, self.device), *moved) for p in ("float32", "float64"))
            if _same_choices(single, exact):
                pairs.append((single, exact))
        return pairs

    def _perturbed(self, delta: float, i: int, rounded: bool = False) -> tuple[Any, dict[str, NDArray], Any]:
        def moved(name: str, value: Any) -> Any:
            if not (isinstance(value, np.ndarray) and is_float(value)):
                return value
            with np.errstate(invalid="ignore"):
                near = np.asarray(value * (1 + delta * key_rng(self.example.key, "perturbation", i, name).uniform(-1, 1, value.shape)))
            return near.astype(np.float32).astype(np.float64) if rounded else near

        def cotangent(label: str, shape: tuple[int, ...]) -> NDArray:
            return moved(f"cotangent.{label}", self.cotangent(label, shape))

        state = {name: moved(f"state.{name}", value) for name, value in self.state.items()}
        return rebuild(self.inputs, moved), state, cotangent


class Trial:
    """A Reference and the NumPy implementation that is held to it."""

    def __init__(self, reference: Reference, implementation: Any = None):
        self.reference, self.component = reference, reference.component
        self._overrides = {} if implementation is None else {self.component.name: implementation}
        self.errors: list[tuple[str, gates.Error]] = []

    def side(self, precision: str) -> Side:
        return Side("numpy", precision, overrides=self._overrides)

    def run(self, precision: str = "float64", inputs: Any = None, state: Any = None, cotangent: Any = None) -> Outcome:
        """A fresh run of the NumPy side, by default on the example itself."""
        reference = self.reference
        with np.errstate(all="ignore"):
            return run(
                self.component,
                self.side(precision),
                reference.inputs if inputs is None else inputs,
                reference.state if state is None else state,
                cotangent or reference.cotangent,
            )

    @functools.cached_property
    def exact(self) -> Outcome:
        return self.run("float64")

    @functools.cached_property
    def single(self) -> Outcome:
        return self.run("float32")


def state_specs(component: Component, example: Example) -> dict[str, Filled]:
    """How a module's arrays are filled: matrices scaled by 1/√fan_in, everything else a unit normal, unless the case says otherwise."""
    if component.kind != "module":
        return {}
    side = Side("numpy")
    inputs, _ = example.fill()
    shapes = {name: value.shape for name, value in side.module(component, inputs["init"]).state_dict().items()}

    def spec(name: str, shape: tuple[int, ...]) -> Filled:
        for ending, given in component.fill.items():
            if name.endswith(ending):
                import dataclasses

                return dataclasses.replace(given, shape=shape)
        return array(*shape, scale=1 / math.sqrt(max(math.prod(shape[1:]), 1)) if len(shape) > 1 else 1.0)

    return {name: spec(name, shape) for name, shape in shapes.items()}


def _gap(got: Any, want: Any) -> float:
    if want is None or np.asarray(want).dtype.kind != "f":
        return 0.0
    return gates.largest(gates.distance(np.asarray(got), np.asarray(want)))


def _same_choices(one: Outcome, other: Outcome) -> bool:
    """Whether all integer outputs are the same: only then are the floats beside them comparable."""
    pairs = ((one.outputs[label], value) for label, value in other.outputs.items())
    return all(np.array_equal(a, b) for a, b in pairs if a is not None and np.asarray(a).dtype.kind != "f")
