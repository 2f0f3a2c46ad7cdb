"""The laws: what must hold of every component, each as one function of a Trial or of a Component.

A law returns nothing, raises Disagreement where it fails, and NotApplicable (with the reason) where it has nothing to say.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import gates
from parity.gates import Disagreement, NotApplicable
from parity.registry import Component
from parity.sides import Outcome, Side, is_float, sample
from parity.trial import Reference, Trial
from parity.values import Census, Example, key_rng, rebuild

HAS_GRADIENT = ("op", "module")


# --- laws of one example -----------------------------------------------------------------------------------------------------------


def forward(trial: Trial) -> None:
    """Outputs agree with torch in float64."""
    if trial.component.kind == "initialiser":
        raise NotApplicable("both sides sample from generators of their own; see the law of distributions")
    want = trial.reference.exact
    _same_labels(trial.exact.outputs, want.outputs)
    for label, value in want.outputs.items():
        _exact(trial, label, "forward", trial.exact.outputs[label], value)


def gradient(trial: Trial) -> None:
    """Every gradient agrees with torch's autograd in float64, under a random cotangent."""
    _needs_gradient(trial.component)
    want = trial.reference.exact
    _same_labels(trial.exact.gradients, want.gradients)
    for label, value in want.gradients.items():
        _exact(trial, label, "gradient", trial.exact.gradients[label], value)


def witness(trial: Trial) -> None:
    """The third witness: a central difference in one random direction agrees with ⟨gradient, direction⟩."""
    _needs_gradient(trial.component)
    if not trial.reference.example.ordinary:
        return  # kinks and ties have no derivative to difference
    reference = trial.reference
    floats = {name: value for name, value in _differentiated(trial).items()}
    terms, moves = [], {}
    for label, value in floats.items():
        grad = trial.exact.gradients.get(label)
        if grad is None or not value.size:
            continue
        direction = key_rng(reference.example.key, "direction", label).standard_normal(value.shape)
        moves[label] = direction * max(gates.largest(value), 1e-3)
        terms.append((np.asarray(grad) * moves[label]).ravel())
    if not terms:
        return
    products = np.concatenate(terms)
    analytic, size = float(products.sum()), float(np.sqrt((products**2).sum()))

    def objective(step: float) -> float:
        inputs, state = _moved(trial, {label: step * move for label, move in moves.items()})
        outputs = trial.run("float64", inputs, state).outputs
        pairs = [(v, reference.cotangent(k, v.shape)) for k, v in outputs.items() if is_float(v) and k not in trial.component.detached]
        with np.errstate(invalid="ignore"):
            return float(sum(np.where(np.isfinite(v), v * c, 0.0).sum() for v, c in pairs))

    level = sum(float(np.abs(np.where(np.isfinite(v), v, 0)).sum()) for v in trial.exact.outputs.values() if is_float(v))
    best, shown = np.inf, analytic
    for step in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
        numeric = (objective(step) - objective(-step)) / (2 * step)
        rounding = 1e-15 * (level + 1) / step
        gap = max(abs(numeric - analytic) - rounding if rounding < 1e-5 * size else abs(numeric - analytic), 0.0)
        if gap < best:
            best, shown = gap, numeric
        if best <= 1e-6 * size:
            return
    if not best <= 1e-6 * size + 1e-12 * (level + 1):
        raise Disagreement("backward", f"⟨gradient, direction⟩ is {analytic:.10g}, the central difference is {shown:.10g}")


def linear(trial: Trial) -> None:
    """The pullback is linear: backward(0) is 0, and backward(2u + v) = 2·backward(u) + backward(v)."""
    _needs_gradient(trial.component)
    pullback = trial.exact.pullback
    assert pullback is not None
    labels = [k for k, v in trial.exact.outputs.items() if is_float(v) and k not in trial.component.detached]
    u = {k: trial.reference.cotangent(k, trial.exact.outputs[k].shape) for k in labels}
    v = {k: key_rng(trial.reference.example.key, "second cotangent", k).standard_normal(u[k].shape) for k in labels}
    with np.errstate(all="ignore"):
        zero = pullback({k: np.zeros_like(c) for k, c in u.items()})
        from_v, from_both = pullback(v), pullback({k: 2 * u[k] + v[k] for k in labels})
    for label, from_u in trial.exact.gradients.items():
        if from_u is None:
            continue
        if np.any(np.asarray(zero[label]) != 0) and np.isfinite(from_u).all():
            raise Disagreement(label, "backward(0) is not 0", expected=np.zeros_like(from_u), got=zero[label])
        want = 2 * from_u + from_v[label]
        size = max(gates.largest(want), gates.largest(from_u), trial.reference.cotangent_scale)
        if np.isfinite(want).all():
            gates.within(label, from_both[label], want, 1e-9 * size, "linearity of the pullback")


def repeatable(trial: Trial) -> None:
    """Calling twice gives the same bits; inputs, state and dy are not written to; no global random state moves."""
    component, reference = trial.component, trial.reference
    before = _random_state()
    first = trial.run("float32")
    if _random_state() != before:
        raise Disagreement("", "a global random state was advanced")
    second = trial.run("float32")
    for label, _, value in first.labelled():
        other = second.gradients[label] if label in second.gradients else second.outputs[label]
        if value is not None and not _same_bits(value, other):
            raise Disagreement(label, "two calls with the same inputs differ", expected=value, got=other)
    if component.kind not in HAS_GRADIENT:
        _leaves_inputs_alone(trial)
        return
    assert first.pullback is not None
    cotangents = {
        k: reference.cotangent(k, v.shape).astype(np.float32) for k, v in first.outputs.items() if is_float(v) and k not in component.detached
    }
    kept = {k: c.copy() for k, c in cotangents.items()}
    outputs = {k: np.array(v) for k, v in first.outputs.items() if is_float(v)}
    with np.errstate(all="ignore"):
        again = first.pullback(cotangents)
        snapshot = {k: None if g is None else np.array(g) for k, g in again.items()}
        third = first.pullback(cotangents)
    for label, grad in first.gradients.items():
        if grad is not None and not (_same_bits(snapshot[label], third[label]) and _same_bits(grad, third[label])):
            raise Disagreement(label, "calling backward twice gives different bits", expected=grad, got=third[label])
    for label, c in cotangents.items():
        if not _same_bits(c, kept[label]):
            raise Disagreement(f"d{label}", "backward wrote to its cotangent", expected=kept[label], got=c)
    for label, value in outputs.items():
        if not _same_bits(first.outputs[label], value):
            raise Disagreement(label, "backward wrote to an output", expected=value, got=first.outputs[label])
    _leaves_inputs_alone(trial)
    if component.kind == "module":
        _inference_has_the_same_bits(trial, first)


def typed(trial: Trial) -> None:
    """Outputs have torch's dtype and are arrays; a gradient has exactly its array's shape and dtype."""
    for precision, run, twin in (("float32", trial.single, trial.reference.single), ("float64", trial.exact, trial.reference.exact)):
        if trial.component.kind in HAS_GRADIENT:
            for label, value in run.outputs.items():
                if value is not None and not isinstance(value, np.ndarray):
                    raise Disagreement(label, f"expected an array, got {type(value).__name__}")
        for label, role, value in run.labelled():
            if value is None or not hasattr(value, "dtype"):
                continue
            table = twin.gradients if role == "gradient" else twin.outputs
            want = table.get(label)
            if want is not None and hasattr(want, "dtype") and want.dtype.kind == "f" and value.dtype != want.dtype:
                raise Disagreement(label, f"expected {want.dtype} from {precision} inputs, got {value.dtype}", expected=want, got=value)
        for label, value in _differentiated(trial).items():
            grad = run.gradients.get(label)
            if grad is None:
                continue
            if not isinstance(grad, np.ndarray) or grad.shape != value.shape:
                raise Disagreement(label, f"expected the shape of its array, {value.shape}; got {np.shape(grad)}", expected=value, got=grad)


def float32(trial: Trial) -> None:
    """The public promise: in float32 outputs and gradients agree to 1e-5 of scale."""
    if trial.component.kind == "initialiser":
        raise NotApplicable("see the law of distributions")
    reference = trial.reference
    _same_labels(trial.single.outputs, reference.single.outputs)
    _same_labels(trial.single.gradients, reference.single.gradients)
    for label, role, got in trial.single.labelled():
        want, single = reference.value(label), reference.value(label, reference.single)
        floating = want is not None and np.asarray(want).dtype.kind == "f"
        torch_error = reference.torch_error(label) if floating else 0.0
        change = reference.change(label, 4 * gates.U32) if floating else 0.0
        error = gates.single32(label, role, got, single, want, reference.cotangent_scale, torch_error, change)
        trial.errors.append(("float32", error))


def layouts(trial: Trial) -> None:
    """Transposed, strided and read-only inputs give what contiguous ones give."""
    if trial.component.kind not in ("op", "value"):
        raise NotApplicable("arrays are handed in by its ops")
    component, reference = trial.component, trial.reference
    want = trial.exact
    for name, lay in (("Fortran order", np.asfortranarray), ("every second entry of a larger array", _strided)):
        inputs = rebuild(reference.inputs, lambda _, v, lay=lay: _read_only(lay(v)) if isinstance(v, np.ndarray) and v.ndim else v)

        def cotangent(label: str, shape: tuple[int, ...], lay: Callable = lay) -> NDArray:
            dy = reference.cotangent(label, shape)
            return _read_only(lay(dy)) if shape else dy

        side = trial.side("float64")
        side.array = lambda value: value  # type: ignore[method-assign]  # keep the layout as it is
        side.cotangent = lambda dy, dtype: dy  # type: ignore[method-assign]
        with np.errstate(all="ignore"):
            from parity.sides import run

            got = run(component, side, inputs, reference.state, cotangent)
        for label, role, value in want.labelled():
            other = got.gradients[label] if role == "gradient" else got.outputs[label]
            try:
                gates.exact64(label, role, other, value, reference.cotangent_scale, lambda label=label: reference.change(label, 1e-12))
            except Disagreement as wrong:
                raise Disagreement(label, f"inputs in {name}: {wrong.what}", expected=wrong.expected, got=wrong.got, index=wrong.index) from None


def further(trial: Trial) -> None:
    """What the case says must hold besides: equal to another component on their common ground, say."""
    component, reference = trial.component, trial.reference
    if not component.also:
        raise NotApplicable("the case adds no equality of its own")
    for side in (trial.side("float64"), Side("torch", "float64", reference.device)):
        if component.kind == "module":
            module = side.module(component, reference.inputs["init"], reference.state)
            inputs = {"module": module} | side.tree(dict(reference.inputs.get("call", {})))
        else:
            inputs = side.tree(dict(reference.inputs))
        for equality in component.also:
            with np.errstate(all="ignore"):
                for label, got, want in equality(side, **inputs):
                    got, want = side.numpy(got), side.numpy(want)
                    tolerance = 1e-9 * max(gates.largest(want), reference.cotangent_scale, 1e-3)
                    gates.within(f"{label} ({side.name})", got, want, tolerance, f"an equality of the case, {equality.__name__}")


# --- laws of the component ---------------------------------------------------------------------------------------------------------


def sizes(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """Sizes 0 and 1 work wherever the case allows them: outputs and gradients agree there too."""
    if component.kind not in ("op", "value", "module"):
        raise NotApplicable("it takes no array of free shape")
    for example in component.census(6, seed, edges=True):
        trial = Trial(Reference(component, example, device), implementation)
        forward(trial)
        if component.kind in HAS_GRADIENT:
            gradient(trial)
            typed(trial)


def nonfinite(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """NaN and infinities in the inputs come out in the same pattern as from torch."""
    if component.kind not in ("op", "value"):
        raise NotApplicable("judged on the ops it is made of")
    found = False
    for index in range(6):
        key = f"seed {seed}, non-finite {index}"
        example = component.example(key, Census(f"{component.name}/{key}", ordinary=True))
        reference = Reference(component, example, device)
        poison = (np.nan, np.inf, -np.inf)[index % 3]
        floats = [name for name, v in _named_floats(reference.inputs).items() if v.size]
        if not floats:
            continue
        found, target = True, floats[key_rng(key).integers(len(floats))]

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
                raise Disagreement(
                    label, f"with {poison} in {target}: {wrong.what}", expected=wrong.expected, got=wrong.got, index=wrong.index
                ) from None
    if not found:
        raise NotApplicable("it takes no floats")


def refusals(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """Bad input gets the same ValueError on both sides; it names the function."""
    if not component.refuses:
        raise NotApplicable("the case lists nothing that must be refused")
    from parity.sides import run

    overrides = {} if implementation is None else {component.name: implementation}
    for index, bad in enumerate(component.refuses):
        example = Example(f"{component.name}/refusal {index}", True, rebuild(bad, lambda _, v: v))
        inputs, _ = example.fill()
        told = []
        for side in (Side("numpy", overrides=overrides), Side("torch")):
            try:
                with np.errstate(all="ignore"):
                    _attempt(component, side, inputs, run)
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
    if component.kind not in ("initialiser", "module"):
        raise NotApplicable("it initialises nothing")
    overrides = {} if implementation is None else {component.name: implementation}
    for example in component.census(3 if component.kind == "initialiser" else 1, seed):
        inputs, _ = example.fill()
        ours, theirs = Side("numpy", "float32", overrides=overrides), Side("torch", "float32", device)
        if component.kind == "initialiser":
            draws = [{"y": np.stack([sample(component, side, inputs, s) for s in range(24)])} for side in (ours, theirs)]
        else:
            draws = [_initial_states(component, side, inputs, 24) for side in (ours, theirs)]
        _same_labels(*draws)
        for label, want in draws[1].items():
            _same_distribution(label, draws[0][label], want)


def state(component: Component, implementation: Any = None, device: str = "cpu", seed: int = 0) -> None:
    """State keys equal torch's; the keys of the gradients are exactly the trainable ones, also after freezing."""
    if component.kind != "module":
        raise NotApplicable("it holds no parameters")
    from numpy_impl.layers.module import flatten

    overrides = {} if implementation is None else {component.name: implementation}
    for example in component.census(4, seed):
        reference = Reference(component, example, device)
        side, twin = Side("numpy", overrides=overrides), Side("torch", device=device)
        module = side.module(component, reference.inputs["init"], reference.state)
        want = {k: tuple(v.shape) for k, v in twin.module(component, reference.inputs["init"], reference.state).state_dict().items()}
        got = {k: v.shape for k, v in module.state_dict().items()}
        if got != want:
            raise Disagreement("state_dict", f"expected {want}, got {got}")
        for frozen in (None, next(iter(module.parameters()), None)):
            if frozen is not None:
                module.freeze(frozen)
            call = side.tree(dict(reference.inputs.get("call", {})))
            from parity.sides import flatten as labelled

            y, backward = module.forward(*call_arguments(module, call)[0], **call_arguments(module, call)[1])
            cotangents = [np.zeros_like(v) for k, v in labelled(y).items() if is_float(v) and k not in component.detached]
            returned = backward(*cotangents)
            grads = flatten(returned[-1] if isinstance(returned, tuple) else returned)
            if set(grads) != set(module.parameters()):
                raise Disagreement("grads", f"expected the trainable names {sorted(module.parameters())}, got {sorted(grads)}")
            for name, value in module.parameters().items():
                if grads[name].shape != value.shape or grads[name].dtype != value.dtype:
                    raise Disagreement(f"grads.{name}", f"expected {value.dtype} {value.shape}, got {grads[name].dtype} {grads[name].shape}")


TRIAL_LAWS: dict[str, Callable[[Trial], None]] = {
    "forward": forward,
    "gradient": gradient,
    "witness": witness,
    "linear": linear,
    "repeatable": repeatable,
    "typed": typed,
    "float32": float32,
    "layouts": layouts,
    "further": further,
}
COMPONENT_LAWS: dict[str, Callable[..., None]] = {
    "sizes": sizes,
    "nonfinite": nonfinite,
    "refusals": refusals,
    "distribution": distribution,
    "state": state,
}
LAWS: dict[str, Callable] = TRIAL_LAWS | COMPONENT_LAWS


# --- what the laws share -----------------------------------------------------------------------------------------------------------


def call_arguments(module: Any, call: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """A module call as positional and keyword arguments of its forward."""
    from parity.sides import arguments

    return arguments(type(module).forward, call)


def _needs_gradient(component: Component) -> None:
    if component.kind not in HAS_GRADIENT:
        raise NotApplicable("it has no gradient")


def _exact(trial: Trial, label: str, role: str, got: Any, want: Any) -> None:
    reference = trial.reference
    error = gates.exact64(label, role, got, want, reference.cotangent_scale, lambda: reference.change(label, gates.EXACT_DELTA))
    trial.errors.append(("float64", error))
    if trial.component.kind == "value" and want is not None and np.asarray(want).dtype.kind == "f":
        size = gates.largest(want)
        allowed = max(1e-12 * size, 8 * reference.change(label, gates.EXACT_DELTA))
        gates.within(label, got, want, allowed, "values without gradient agree to 1e-12")


def _same_labels(got: dict[str, Any], want: dict[str, Any]) -> None:
    if set(got) != set(want):
        raise Disagreement("", f"expected {sorted(want)}, got {sorted(got)}")


def _named_floats(inputs: Any) -> dict[str, NDArray]:
    from parity.values import walk

    return {name: value for name, value in walk(inputs) if isinstance(value, np.ndarray) and is_float(value)}


def _differentiated(trial: Trial) -> dict[str, NDArray]:
    """The arrays that have gradients, by gradient label: inputs as `dx`, a module's own as `grads.weight`."""
    reference = trial.reference
    prefix = "call." if trial.component.kind == "module" else ""
    named = {name: v for name, v in _named_floats(reference.inputs).items() if name.startswith(prefix)}
    inputs = {f"d{name.removeprefix(prefix)}": v for name, v in named.items()}
    state = {f"grads.{name}": v for name, v in reference.state.items()}
    return {label: v for label, v in (inputs | state).items() if label in trial.exact.gradients}


def _moved(trial: Trial, moves: dict[str, NDArray]) -> tuple[Any, dict[str, NDArray]]:
    prefix = "call." if trial.component.kind == "module" else ""

    def move(name: str, value: Any) -> Any:
        label = f"d{name.removeprefix(prefix)}"
        return value + moves[label] if name.startswith(prefix) and label in moves and isinstance(value, np.ndarray) else value

    state = {name: v + moves.get(f"grads.{name}", 0.0) for name, v in trial.reference.state.items()}
    return rebuild(trial.reference.inputs, move), state


def _same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _random_state() -> tuple:
    keys, position = np.random.get_state()[1:3]  # type: ignore[index]  # noqa: NPY002  (the legacy state is what must not move)
    return random.getstate(), keys.tobytes(), position


def _leaves_inputs_alone(trial: Trial) -> None:
    """Inputs handed in as read-only arrays are never written to (a write raises, and is told as a Disagreement)."""
    component, reference = trial.component, trial.reference
    if component.kind not in ("op", "value", "module"):
        return
    side = trial.side("float64")
    plain = side.array
    side.array = lambda value: _read_only(plain(value))  # type: ignore[method-assign]
    side.cotangent = lambda dy, dtype: _read_only(dy.astype(dtype))  # type: ignore[method-assign]
    from parity.sides import run

    try:
        with np.errstate(all="ignore"):
            run(component, side, reference.inputs, reference.state, reference.cotangent)
    except ValueError as error:
        if "read-only" in str(error) or "WRITEABLE" in str(error):
            raise Disagreement("", f"it writes to an input or to its cotangent: {error}") from None
        raise


def _inference_has_the_same_bits(trial: Trial, first: Outcome) -> None:
    from parity.sides import flatten

    side, reference = trial.side("float32"), trial.reference
    module = side.module(trial.component, reference.inputs["init"], reference.state)
    args, options = call_arguments(module, side.tree(dict(reference.inputs.get("call", {}))))
    before = {name: value.copy() for name, value in module.state_dict().items()}
    with np.errstate(all="ignore"):
        plain = flatten(module(*args, **options))
        forward_again, backward = module.forward(*args, **options)
        if backward is not None:
            backward(*(np.ones_like(v) for k, v in flatten(forward_again).items() if is_float(v) and k not in trial.component.detached))
    for label, value in first.outputs.items():
        if value is not None and not _same_bits(plain[label], value):
            raise Disagreement(label, "module(x) has other bits than forward(x)[0]", expected=value, got=plain[label])
    for name, value in module.state_dict().items():
        if not _same_bits(value, before[name]):
            raise Disagreement(name, "running the module changed its state", expected=before[name], got=value)


def _strided(value: NDArray) -> NDArray:
    wide = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), dtype=value.dtype)
    wide[..., ::2] = value
    return wide[..., ::2]


def _read_only(value: NDArray) -> NDArray:
    view = value.view()
    view.flags.writeable = False
    return view


def _told(outcome: Any) -> str:
    return f"the error {outcome!r}" if isinstance(outcome, str) else "a result"


def _shown(bad: Any) -> str:
    def short(_: str, value: Any) -> Any:
        return tuple(value.shape) if hasattr(value, "shape") else value

    return str(rebuild(bad, short))


def _attempt(component: Component, side: Side, inputs: Any, run: Callable) -> None:
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
        if side.name == "numpy" and "rng" in inspect.signature(side.get(component.name)).parameters and not component.build:
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
        raise Disagreement(label, f"distributions differ: largest gap of the two empirical distributions is {gap:.3g}, allowed is {bound:.3g}")
    if np.array_equal(got[0], got[-1]) and got[0].size > 1:
        raise Disagreement(label, "another seed gives the same values")
    spread = abs(a.std() / b.std() - 1)
    if not spread <= 6 / np.sqrt(n) * 2:
        raise Disagreement(label, f"standard deviations differ: expected {b.std():.4g}, got {a.std():.4g}")
