"""How each kind of component is run on each side, so that laws see one thing: labelled outputs and labelled gradients."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.registry import Component, components
from parity.values import walk

Cotangent = Callable[[str, tuple[int, ...]], NDArray]


@dataclasses.dataclass
class Outcome:
    """What one run gave: NumPy arrays by label. A gradient is None where an optional array was None."""

    outputs: dict[str, Any]
    gradients: dict[str, NDArray | None]
    pullback: Callable[[dict[str, NDArray]], dict[str, NDArray | None]] | None = None
    subject: Any = None                       # the module, where the component is one

    def labelled(self) -> Iterator[tuple[str, str, Any]]:
        """(label, 'forward' or 'gradient', array) of everything."""
        yield from ((label, "forward", value) for label, value in self.outputs.items())
        yield from ((label, "gradient", value) for label, value in self.gradients.items())


class Side:
    """One implementation at one dtype on one device; what a case's `play`, `build` and `also` functions are handed.

    name : "numpy" or "torch";  dtype : the side's own dtype object;  device : where torch tensors live
    """

    def __init__(self, name: str, precision: str = "float64", device: str = "cpu", overrides: Mapping[str, Any] | None = None):
        self.name, self.precision, self.device = name, precision, device
        self._overrides = dict(overrides or {})

    @property
    def dtype(self) -> Any:
        return getattr(self._library, self.precision)

    @property
    def _library(self) -> Any:
        return importlib.import_module(self.name)

    def get(self, component: str) -> Any:
        """The function or class of that name on this side."""
        if component in self._overrides:
            return self._overrides[component]
        return components()[component].implementation(self.name)

    def implementation(self, component: Component) -> Any:
        """This side of a component that need not be registered."""
        return self._overrides.get(component.name) or component.implementation(self.name)

    def array(self, value: NDArray) -> Any:
        """A NumPy array as this side's array, floats in this side's dtype."""
        floating = np.issubdtype(value.dtype, np.floating)
        if self.name == "numpy":
            return value.astype(self.dtype) if floating else value.copy()
        import torch

        tensor = torch.from_numpy(np.array(value, order="C")).to(self.device)
        return tensor.to(self.dtype) if floating else tensor

    def cotangent(self, dy: NDArray, dtype: Any) -> NDArray:
        """A NumPy cotangent of this dtype, a copy: a faulty backward may write to it."""
        return dy.astype(dtype)

    def numpy(self, value: Any) -> Any:
        """This side's array as a NumPy array; everything else unchanged."""
        if self.name == "torch" and hasattr(value, "detach"):
            return value.detach().cpu().numpy()
        return value

    def tree(self, tree: Any) -> Any:
        """Every NumPy array in nested dicts, lists and tuples as this side's array."""
        if isinstance(tree, np.ndarray):
            return self.array(tree)
        if isinstance(tree, dict):
            return {name: self.tree(value) for name, value in tree.items()}
        if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
            return type(tree)(self.tree(value) for value in tree)
        return tree

    def module(self, component: Component, init: Mapping[str, Any], state: Mapping[str, NDArray] | None = None) -> Any:
        """The component built from its constructor's arguments and filled with `state`."""
        init = self.tree(dict(init))
        module = component.build(self, **init) if component.build else self.implementation(component)(**init, dtype=self.dtype)
        if self.name == "torch":
            module = module.to(self.device)
        if state is not None:
            self.load(module, state)
        return module

    def load(self, module: Any, state: Mapping[str, NDArray]) -> None:
        """Fill a module of this side from NumPy arrays, strictly."""
        arrays = {name: self.array(value) for name, value in state.items()}
        if self.name == "numpy":
            module.load_state_dict(arrays)
        else:
            module.load_state_dict(arrays, strict=True)


def flatten(value: Any, name: str = "y") -> dict[str, Any]:
    """Labelled leaves of whatever a component returned: one array is `y`, a NamedTuple's fields and a dict's keys are labels."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
        return {k: v for field, item in value.items() for k, v in flatten(item, field).items()}
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flatten(item, str(key) if name == "y" else f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{name}.{i}").items()}
    return {name: value}


def positional(function: Callable) -> list[str]:
    """The names of the arguments that come first and positionally: the differentiable ones, where they hold floats."""
    return [p.name for p in _parameters(function) if p.kind == p.POSITIONAL_OR_KEYWORD and p.name != "self"]


@functools.cache
def _parameters(function: Callable) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(function).parameters.values())


def arguments(signature_of: Callable, inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """`inputs` as positional and keyword arguments of our signature, so that another function may name its parameters otherwise."""
    names = positional(signature_of)
    given = [i for i, name in enumerate(names) if name in inputs]
    defaults = {p.name: p.default for p in _parameters(signature_of)}
    args = [inputs.get(name, defaults[name]) for name in names[: max(given, default=-1) + 1]]
    return args, {name: value for name, value in inputs.items() if name not in names}


def call_arguments(module: Any, call: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """A module call as positional and keyword arguments of its forward."""
    return arguments(type(module).forward, call)


def named_floats(inputs: Any) -> dict[str, NDArray]:
    """Every float NumPy array of an example by its dotted name."""
    return {name: value for name, value in walk(inputs) if isinstance(value, np.ndarray) and is_float(value)}


def is_float(value: Any) -> bool:
    """Whether it is a float array of either library."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and "float" in str(value.dtype)


def run(
    component: Component,
    side: Side,
    inputs: Mapping[str, Any],
    state: Mapping[str, NDArray],
    cotangent: Cotangent,
) -> Outcome:
    """Run the component forward and backward on one side.

    inputs : as the case drew them, filled;  state : a module's arrays;  cotangent : (label, shape) -> array, the random dy
    """
    kind = component.kind
    if kind == "optimizer":
        return Outcome(_trajectory(component, side, inputs), {})
    if kind == "play":
        assert component.play is not None
        return Outcome({k: side.numpy(v) for k, v in flatten(component.play(side, **inputs)).items()}, {})
    if kind == "initialiser":
        return Outcome({"y": sample(component, side, inputs, seed=0)}, {})
    if kind == "module":
        module = side.module(component, inputs["init"], state)
        call = side.tree(inputs.get("call", {}))
        runner = _run_numpy if side.name == "numpy" else _run_torch
        return runner(component, side, module.forward, call, cotangent, module)
    function = side.implementation(component)
    if kind == "value":
        args, options = arguments(component.implementation("numpy"), side.tree(dict(inputs)))
        return Outcome({k: side.numpy(v) for k, v in flatten(function(*args, **options)).items()}, {})
    runner = _run_numpy if side.name == "numpy" else _run_torch
    return runner(component, side, function, side.tree(dict(inputs)), cotangent, None)


def differentiable(component: Component, call: Mapping[str, Any], module: Any) -> list[tuple[str, bool]]:
    """(name, given) of every argument that has a place among the gradients: float arrays, and optional arrays that are None."""
    if module is None:
        reference = component.implementation("numpy")
    else:
        reference = type(module).forward
    parameters = {p.name: p for p in _parameters(reference)}
    slots = []
    for name in positional(reference):
        value = call.get(name, parameters[name].default)
        if is_float(value) or value is None:
            slots.append((name, value is not None))
    return slots


def _run_numpy(component: Component, side: Side, function: Callable, call: dict, cotangent: Cotangent, module: Any) -> Outcome:
    reference = component.implementation("numpy") if module is None else function
    args, options = arguments(reference, call)
    result = function(*args, **options)
    if not isinstance(result, tuple) or len(result) != 2 or not callable(result[1]):
        raise TypeError(f"{component.name} should return (y, backward); it returned {type(result).__name__}")
    y, backward = result
    outputs = flatten(y)
    slots = differentiable(component, call, module)

    def pullback(cotangents: dict[str, NDArray]) -> dict[str, NDArray | None]:
        returned = backward(*cotangents.values())
        grads = {}
        if module is not None:
            from numpy_impl.layers.module import flatten as flatten_grads

            returned = returned if isinstance(returned, tuple) else (returned,)
            grads = {f"grads.{name}": grad for name, grad in flatten_grads(returned[-1]).items()}
            returned = returned[:-1]
        elif not isinstance(returned, tuple):
            returned = (returned,)
        if len(returned) != len(slots):
            names = ", ".join(f"d{name}" for name, _ in slots)
            raise TypeError(f"{component.name}: backward should return {len(slots)} gradients ({names}); it returned {len(returned)}")
        return {f"d{name}": grad for (name, _), grad in zip(slots, returned, strict=True)} | grads

    cotangents = {
        label: side.cotangent(cotangent(label, value.shape), value.dtype)
        for label, value in outputs.items()
        if is_float(value) and label not in component.detached
    }
    return Outcome(outputs, pullback(cotangents), pullback, module)


def _run_torch(component: Component, side: Side, function: Callable, call: dict, cotangent: Cotangent, module: Any) -> Outcome:
    import torch

    slots = differentiable(component, call, module)
    for name, given in slots:
        if given:
            call[name] = call[name].requires_grad_(True)
    args, options = arguments(component.implementation("numpy") if module is None else function, call)
    outputs = flatten(function(*args, **options) if module is None else module(*args, **options))
    leaves = {f"d{name}": call[name] for name, given in slots if given}
    if module is not None:
        leaves |= {f"grads.{name}": p for name, p in module.named_parameters() if p.requires_grad}
    roots = {k: v for k, v in outputs.items() if is_float(v) and k not in component.detached and v.requires_grad}
    cotangents = [side.array(np.asarray(cotangent(k, tuple(v.shape)))).to(v.dtype) for k, v in roots.items()]
    found: tuple[Any, ...] = (None,) * len(leaves)
    if roots and leaves:
        found = torch.autograd.grad(list(roots.values()), list(leaves.values()), cotangents, allow_unused=True)
    gradients: dict[str, Any] = {f"d{name}": None for name, _ in slots}
    for (name, leaf), grad in zip(leaves.items(), found, strict=True):
        gradients[name] = side.numpy(torch.zeros_like(leaf) if grad is None else grad)
    return Outcome({k: side.numpy(v) for k, v in outputs.items()}, gradients, None, module)


def _trajectory(component: Component, side: Side, inputs: Mapping[str, Any]) -> dict[str, NDArray]:
    """The parameters after every step of an optimizer."""
    params = side.tree(dict(inputs["params"]))
    optimizer = side.implementation(component)(params, **inputs["init"])
    lrs = inputs.get("lrs") or [None] * len(inputs["grads"])
    seen: dict[str, NDArray] = {}
    for step, (grads, lr) in enumerate(zip(inputs["grads"], lrs, strict=True)):
        optimizer.step(side.tree(dict(grads)), lr=lr)
        seen |= {f"{name} after step {step + 1}": np.array(side.numpy(value)) for name, value in params.items()}
    return seen


def sample(component: Component, side: Side, inputs: Mapping[str, Any], seed: int) -> NDArray:
    """One draw of an initialiser, from this side's own generator."""
    inputs = dict(inputs) | {"dtype": side.dtype}
    if side.name == "numpy":
        return side.implementation(component)(**inputs, rng=np.random.default_rng(seed))
    import torch

    return side.numpy(side.implementation(component)(**inputs, rng=torch.Generator().manual_seed(seed)))
