"""The laws of a component as a whole: sizes 0 and 1, NaN, refusals, initial distributions, state. Each is one function of a Component."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import gates
from parity.example_laws import HAS_GRADIENT, forward, gradient, typed
from parity.gates import Disagreement
from parity.registry import Component
from parity.sides import Side, call_arguments, flatten, is_float, named_floats, run, sample
from parity.trial import Reference, Trial
from parity.values import Census, Example, key_rng, rebuild


def sizes(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """Sizes 0 and 1 work wherever the case allows them: outputs and gradients agree there too."""
    for example in component.census(6, seed, edges=True):
        trial = Trial(Reference(component, example, device), implementation)
        forward(trial)
        if component.kind in HAS_GRADIENT:
            gradient(trial)
            typed(trial)


def nonfinite(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """NaN and infinities in the inputs come out in the same pattern as from torch."""
    for index in range(6):
        key = f"seed {seed}, non-finite {index}"
        example = component.example(key, Census(f"{component.name}/{key}", ordinary=True))
        reference = Reference(component, example, device)
        poison = (np.nan, np.inf, -np.inf)[index % 3]
        floats = [name for name, v in named_floats(reference.inputs).items() if v.size]
        if not floats:
            continue
        target = floats[key_rng(key).integers(len(floats))]

        def poisoned(name: str, value: Any, target: str = target, poison: float = poison, key: str = key) -> Any:
            if name != target:
                return value
            value = value.copy()
            value.reshape(-1)[key_rng(key, "where").integers(value.size)] = poison
            return value

        reference.inputs = rebuild(reference.inputs, poisoned)
        trial = Trial(reference, implementation)
        outcomes = []
        for attempt in (lambda t=trial: t.exact, lambda r=reference: r.exact):
            try:
                outcomes.append(attempt())
            except ValueError as refused:
                outcomes.append(str(refused))
        got, want = outcomes
        if isinstance(got, str) or isinstance(want, str):
            if got != want:
                raise Disagreement("", f"with {poison} in {target}: NumPy gave {_told(got)}, torch gave {_told(want)}")
            continue
        for label, value in want.outputs.items():
            try:
                gates.same_form(label, got.outputs[label], value)
            except Disagreement as wrong:
                raise wrong.under(f"with {poison} in {target}") from None


def refusals(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """Bad input gets the same ValueError on both sides; it names the function."""
    overrides = {} if implementation is None else {component.name: implementation}
    for index, bad in enumerate(component.refuses):
        example = Example(f"{component.name}/refusal {index}", True, rebuild(bad, lambda _, v: v))
        inputs, _ = example.fill()
        told: list[str | None] = []
        for side in (Side("numpy", overrides=overrides), Side("torch")):
            try:
                with np.errstate(all="ignore"):
                    _attempt(component, side, inputs)
                told.append(None)
            except ValueError as error:
                told.append(str(error))
        shown = _shown(bad)
        if told[0] is None or told[1] is None:
            silent = " and ".join(name for name, text in zip(("NumPy", "torch"), told, strict=True) if text is None)
            raise Disagreement("", f"{silent} should refuse {shown}")
        if told[0] != told[1]:
            raise Disagreement("", f"refusing {shown}, NumPy says {told[0]!r} and torch says {told[1]!r}")


def distribution(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """Both sides initialise from the same distribution (two-sample Kolmogorov–Smirnov, mean and spread)."""
    overrides = {} if implementation is None else {component.name: implementation}
    for example in component.census(3 if component.kind == "initialiser" else 1, seed):
        inputs, _ = example.fill()
        ours, theirs = Side("numpy", "float32", overrides=overrides), Side("torch", "float32", device)
        if component.kind == "initialiser":
            draws = [{"y": np.stack([sample(component, side, inputs, s) for s in range(24)])} for side in (ours, theirs)]
        else:
            draws = [_initial_states(component, side, inputs, 24) for side in (ours, theirs)]
        gates.same_labels(*draws)
        for label, want in draws[1].items():
            _same_distribution(label, draws[0][label], want)


def state(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """State keys equal torch's; the keys of the gradients are exactly the trainable ones, whatever is frozen and unfrozen."""
    from numpy_impl.layers.module import flatten as flatten_grads

    overrides = {} if implementation is None else {component.name: implementation}
    for example in component.census(4, seed):
        reference = Reference(component, example, device)
        side, twin = Side("numpy", overrides=overrides), Side("torch", device=device)
        module = side.module(component, reference.inputs["init"], reference.state)
        want = {k: tuple(v.shape) for k, v in twin.module(component, reference.inputs["init"], reference.state).state_dict().items()}
        got = {k: v.shape for k, v in module.state_dict().items()}
        if got != want:
            raise Disagreement("state_dict", f"expected {want}, got {got}")
        names = set(module.parameters())
        some = max(names, default="")           # the last of them: in a parent it belongs to a child
        stages: list[tuple[Callable[..., Any], tuple[str, ...], set[str]]] = [
            (module.unfreeze, (), names),
            (module.freeze, (some,), names - {some}),
            (module.unfreeze, (some,), names),
            (module.freeze, (), set()),
            (module.unfreeze, (), names),
        ]
        for change, patterns, trainable in stages:
            change(*patterns)
            if set(module.parameters()) != trainable:
                raise Disagreement("parameters", f"expected {sorted(trainable)} to be trainable, got {sorted(module.parameters())}")
            call = side.tree(dict(reference.inputs.get("call", {})))
            args, options = call_arguments(module, call)
            y, backward = module.forward(*args, **options)
            cotangents = [np.zeros_like(v) for k, v in flatten(y).items() if is_float(v) and k not in component.detached]
            returned = backward(*cotangents)
            grads = flatten_grads(returned[-1] if isinstance(returned, tuple) else returned)
            if set(grads) != set(module.parameters()):
                raise Disagreement("grads", f"expected the trainable names {sorted(module.parameters())}, got {sorted(grads)}")
            for name, value in module.parameters().items():
                grad = grads[name]
                if grad.shape != value.shape or grad.dtype != value.dtype:
                    raise Disagreement(f"grads.{name}", f"expected {value.dtype} {value.shape}, got {grad.dtype} {grad.shape}")


# --- what the laws share -----------------------------------------------------------------------------------------------------------


def _told(outcome: Any) -> str:
    return f"the error {outcome!r}" if isinstance(outcome, str) else "a result"


def _shown(bad: Any) -> str:
    def short(_: str, value: Any) -> Any:
        return tuple(value.shape) if hasattr(value, "shape") else value

    return str(rebuild(bad, short))


def _attempt(component: Component, side: Side, inputs: Any) -> None:
    """Run bad inputs forward; for a module also its constructor."""
    if component.kind == "module":
        module = side.module(component, inputs["init"])
        if "call" in inputs:
            args, options = call_arguments(module, side.tree(dict(inputs["call"])))
            module.forward(*args, **options)
    else:
        run(component, side, inputs, {}, lambda _, shape: np.zeros(shape))


def _initial_states(component: Component, side: Side, inputs: Any, count: int) -> dict[str, NDArray]:
    """The fresh parameters of `count` modules, stacked by name."""
    stacked: dict[str, list[NDArray]] = {}
    for i in range(count):
        init = dict(inputs["init"])
        if side.name == "numpy" and "rng" in inspect.signature(side.implementation(component)).parameters and not component.build:
            init["rng"] = np.random.default_rng(i)
        if side.name == "torch":
            import torch

            torch.manual_seed(i)
        for name, value in side.module(component, init).state_dict().items():
            stacked.setdefault(name, []).append(np.array(side.numpy(value)))
    return {name: np.stack(values) for name, values in stacked.items()}


def _same_distribution(label: str, got: NDArray, want: NDArray) -> None:
    """Agreement at the one-in-a-million level; constants agree exactly."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Disagreement(label, f"expected {want.dtype} {want.shape[1:]}, got {got.dtype} {got.shape[1:]}")
    a, b = np.sort(got.ravel().astype(np.float64)), np.sort(want.ravel().astype(np.float64))
    if not a.size:
        return
    if b[0] == b[-1] or a[0] == a[-1]:
        if not np.array_equal(a, b):
            raise Disagreement(label, f"expected every entry to be {b[0]:g}; got between {a[0]:g} and {a[-1]:g}")
        return
    n = a.size
    grid = np.concatenate([a, b])
    gap = np.abs(np.searchsorted(a, grid, "right") - np.searchsorted(b, grid, "right")).max() / n
    bound = np.sqrt(-np.log(1e-6 / 2) / n)  # two samples of n: P(gap > bound) ≤ 1e-6
    if not gap <= bound:
        raise Disagreement(label, f"the two empirical distributions differ by up to {gap:.3g}, allowed is {bound:.3g}")
    if np.array_equal(got[0], got[-1]) and got[0].size > 1:
        raise Disagreement(label, "another seed gives the same values")
    spread = abs(a.std() / b.std() - 1)
    if not spread <= 6 / np.sqrt(n) * 2:
        raise Disagreement(label, f"standard deviations differ: expected {b.std():.4g}, got {a.std():.4g}")
