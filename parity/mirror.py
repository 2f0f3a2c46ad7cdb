"""Completeness: what is public in NumPy, what is public in PyTorch, and what has a case are the same, with the same signatures."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from parity.registry import Component, broken, components

NOT_COMPARED = {"kernel", "device", "rng"}

EXEMPT = {
    "decode.Store": "the protocol of what keeps keys and values; each way of keeping them is a component",
    "layers.Module": "the NumPy side's base class; PyTorch brings its own, torch.nn.Module",
    "optim.Optimizer": "the base class of the optimizers, judged through each of them",
    "layers.flatten": "names nested gradients, which PyTorch keeps on its parameters",
}


def public(side: str, unreadable: dict[str, str]) -> dict[str, Any]:
    """Every public function and class in the public files of one side's rooms, by component name.

    What fails to import is added to `unreadable`.
    """
    root = importlib.import_module(f"{side}_impl")
    found = {}
    for info in pkgutil.walk_packages(root.__path__, f"{side}_impl."):
        if info.name.rpartition(".")[2].startswith("_"):
            continue
        try:
            module = importlib.import_module(info.name)
        except Exception as error:
            unreadable[info.name] = f"{type(error).__name__}: {error}"
            continue
        room = info.name.split(".")[1]
        for name, value in vars(module).items():
            defined_here = getattr(value, "__module__", None) == module.__name__
            if defined_here and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
                found[f"{room}.{name}"] = value
    return found


def faults() -> list[str]:
    """Everything that keeps the mirror from being complete, one sentence each; empty when it is."""
    unreadable: dict[str, str] = broken()
    numpy, torch = (public(side, unreadable) for side in ("numpy", "torch"))
    return [f"{name}: cannot be imported, {why}" for name, why in unreadable.items()] + list(_faults(numpy, torch, components(), EXEMPT))


def _faults(numpy: dict[str, Any], torch: dict[str, Any], cases: dict[str, Component], exempt: dict[str, str]) -> Iterator[str]:
    results = {name for name, value in (numpy | torch).items() if _is_result(value) and name not in cases}
    for name in sorted(exempt):
        if name not in numpy and name not in torch:
            yield f"{name}: exempt, but nowhere to be found"
        elif name in numpy and name in torch and name in cases:
            yield f"{name}: exempt, but complete"
    for name in sorted((numpy.keys() | torch.keys() | cases.keys()) - exempt.keys()):
        sides = [side for side, names in (("numpy_impl", numpy), ("torch_impl", torch)) if name not in names]
        for side in sides:
            yield f"{name}: missing in {side}"
        if name not in cases and name not in results:
            yield f"{name}: no case in parity/cases"
        if sides:
            continue
        if name in results:
            if getattr(numpy[name], "_fields", None) != getattr(torch[name], "_fields", None):
                yield f"{name}: fields differ, {numpy[name]._fields} in NumPy and {torch[name]._fields} in torch"
            continue
        yield from _signature_faults(name, numpy[name], torch[name])
        if inspect.isclass(numpy[name]):
            for method in ("forward", "step"):
                if hasattr(numpy[name], method):
                    yield from _signature_faults(f"{name}.{method}", getattr(numpy[name], method), getattr(torch[name], method, None))
            for method in _own_methods(numpy[name]) & _own_methods(torch[name]) - {"forward", "step"}:
                yield from _signature_faults(f"{name}.{method}", getattr(numpy[name], method), getattr(torch[name], method))
        if name in cases and _file(numpy[name]) != _file(torch[name]):
            yield f"{name}: in {_file(numpy[name])} in NumPy and {_file(torch[name])} in torch"
        if name in cases and cases[name].file != _file(numpy[name]):
            yield f"{name}: implemented in {_file(numpy[name])}, its case stands in {cases[name].file}"


def _signature_faults(name: str, numpy: Any, torch: Any) -> Iterator[str]:
    if torch is None:
        yield f"{name}: missing in torch_impl"
        return
    ours, theirs = _signature(numpy), _signature(torch)
    if ours != theirs:
        yield f"{name}: signatures differ, NumPy has ({_told(ours)}), torch has ({_told(theirs)})"


def _signature(function: Any) -> list[tuple[str, str, str]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, str(p.kind), _default(p.default)) for p in parameters if p.name not in NOT_COMPARED]


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return str(getattr(value, "__name__", value)).removeprefix("torch.")  # np.float32 and torch.float32 are the same wish


def _told(signature: list[tuple[str, str, str]]) -> str:
    star = next((i for i, (_, kind, _) in enumerate(signature) if kind == "keyword-only"), None)
    words = [name + (f"={default}" if default else "") for name, _, default in signature]
    if star is not None:
        words.insert(star, "*")
    return ", ".join(words)


def _own_methods(cls: type) -> set[str]:
    return {name for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")}


def _is_result(value: Any) -> bool:
    """A NamedTuple that a component returns, or an error that it raises: mirrored by name, not a component of its own."""
    return inspect.isclass(value) and issubclass(value, (tuple, Exception))


def _file(value: Any) -> str:
    return value.__module__.split("_impl.", 1)[1]
