"""The laws of one example: what must hold of outputs and gradients, each law one function of a Trial.

A law returns nothing and raises Disagreement where it fails. To which components it applies is said in parity/laws.py.
"""

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import gates
from parity.gates import Disagreement
from parity.sides import Outcome, Side, call_arguments, flatten, is_float, named_floats, run
from parity.trial import Trial
from parity.values import key_rng, rebuild

HAS_GRADIENT = ("op", "module")  # kinds of component


def forward(trial: Trial) -> None:
    """Outputs agree with torch in float64."""
    want = trial.reference.exact
    gates.same_labels(trial.exact.outputs, want.outputs)
    for label, value in want.outputs.items():
        _exact(trial, label, "forward", trial.exact.outputs[label], value)


def gradient(trial: Trial) -> None:
    """Every gradient agrees with torch's autograd in float64, under a random cotangent."""
    want = trial.reference.exact
    gates.same_labels(trial.exact.gradients, want.gradients)
    for label, value in want.gradients.items():
        _exact(trial, label, "gradient", trial.exact.gradients[label], value)


def witness(trial: Trial) -> None:
    """The third witness: a central difference in one random direction agrees with ⟨gradient, direction⟩."""
    if not trial.reference.example.ordinary:
        return  # kinks and ties have no derivative to difference
    reference = trial.reference
    terms, moves = [], {}
    for label, value in _differentiated(trial).items():
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
    pullback = trial.exact.pullback
    assert pullback is not None
    labels = [k for k, v in trial.exact.outputs.items() if is_float(v) and k not in trial.component.detached]
    u = {k: trial.reference.cotangent(k, trial.exact.outputs[k].shape) for k in labels}
    v = {k: key_rng(trial.reference.example.key, "second cotangent", k).standard_normal(u[k].shape) for k in labels}
    with np.errstate(all="ignore"):
        zero = pullback({k: np.zeros_like(c) for k, c in u.items()})
        from_v, from_both = pullback(v), pullback({k: 2 * u[k] + v[k] for k in labels})
    for label, from_u in trial.exact.gradients.items():
        if from_u is None or from_v[label] is None:
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
    driven = [k for k, v in first.outputs.items() if is_float(v) and k not in component.detached]
    cotangents = {k: reference.cotangent(k, first.outputs[k].shape).astype(np.float32) for k in driven}
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
    for precision, ours, twin in (("float32", trial.single, trial.reference.single), ("float64", trial.exact, trial.reference.exact)):
        if trial.component.kind in HAS_GRADIENT:
            for label, value in ours.outputs.items():
                if value is not None and not isinstance(value, np.ndarray):
                    raise Disagreement(label, f"expected an array, got {type(value).__name__}")
        for label, role, value in ours.labelled():
            if value is None or not hasattr(value, "dtype"):
                continue
            table = twin.gradients if role == "gradient" else twin.outputs
            want = table.get(label)
            if want is not None and hasattr(want, "dtype") and want.dtype.kind == "f" and value.dtype != want.dtype:
                raise Disagreement(label, f"expected {want.dtype} from {precision} inputs, got {value.dtype}", expected=want, got=value)
        for label, value in _differentiated(trial).items():
            grad = ours.gradients.get(label)
            if grad is None:
                continue
            if not isinstance(grad, np.ndarray) or grad.shape != value.shape:
                raise Disagreement(label, f"expected the shape of its array, {value.shape}; got {np.shape(grad)}", expected=value, got=grad)


def float32(trial: Trial) -> None:
    """The public promise: in float32 outputs and gradients agree to 1e-5 of scale."""
    reference = trial.reference
    gates.same_labels(trial.single.outputs, reference.single.outputs)
    gates.same_labels(trial.single.gradients, reference.single.gradients)
    for label, role, got in trial.single.labelled():
        want, single = reference.value(label), reference.value(label, reference.single)
        floating = want is not None and np.asarray(want).dtype.kind == "f"
        torch_error = reference.torch_error(label) if floating else 0.0
        change = reference.change(label, 4 * gates.U32) if floating else 0.0
        error = gates.single32(label, role, got, single, want, reference.cotangent_scale, torch_error, change)
        trial.errors.append(("float32", error))


def layouts(trial: Trial) -> None:
    """Transposed, strided and read-only inputs give what contiguous ones give."""
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
                    got = run(component, side, inputs, reference.state, cotangent)
        for label, role, value in want.labelled():
            other = got.gradients[label] if role == "gradient" else got.outputs[label]
            try:
                gates.exact64(label, role, other, value, reference.cotangent_scale, functools.partial(reference.change, label, 1e-12))
            except Disagreement as wrong:
                raise wrong.under(f"inputs in {name}") from None


def further(trial: Trial) -> None:
    """What the case says must hold besides: equal to another component on their common ground, say."""
    component, reference = trial.component, trial.reference
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


# --- what the laws share -----------------------------------------------------------------------------------------------------------


def _exact(trial: Trial, label: str, role: str, got: Any, want: Any) -> None:
    reference = trial.reference
    error = gates.exact64(label, role, got, want, reference.cotangent_scale, lambda: reference.change(label, gates.EXACT_DELTA))
    trial.errors.append(("float64", error))
    if trial.component.kind == "value" and want is not None and np.asarray(want).dtype.kind == "f":
        size = gates.largest(want)
        allowed = max(1e-12 * size, 8 * reference.change(label, gates.EXACT_DELTA))
        gates.within(label, got, want, allowed, "values without gradient agree to 1e-12")


def _differentiated(trial: Trial) -> dict[str, NDArray]:
    """The arrays that have gradients, by gradient label: inputs as `dx`, a module's own as `grads.weight`."""
    reference = trial.reference
    prefix = "call." if trial.component.kind == "module" else ""
    named = {name: v for name, v in named_floats(reference.inputs).items() if name.startswith(prefix)}
    inputs = {f"d{name.removeprefix(prefix)}": v for name, v in named.items()}
    state = {f"grads.{name}": v for name, v in reference.state.items()}
    return {label: v for label, v in (inputs | state).items() if label in trial.exact.gradients}


def _moved(trial: Trial, moves: dict[str, NDArray]) -> tuple[Any, dict[str, NDArray]]:
    prefix = "call." if trial.component.kind == "module" else ""

    def move(name: str, value: Any) -> Any:
        label = f"d{name.removeprefix(prefix)}"
        if not name.startswith(prefix) or label not in moves or not isinstance(value, np.ndarray):
            return value
        return np.asarray(value + moves[label])

    state = {name: np.asarray(v + moves.get(f"grads.{name}", 0.0)) for name, v in trial.reference.state.items()}
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
    try:
        with np.errstate(all="ignore"):
            run(component, side, reference.inputs, reference.state, reference.cotangent)
    except ValueError as error:
        if "read-only" in str(error) or "WRITEABLE" in str(error):
            raise Disagreement("", f"it writes to an input or to its cotangent: {error}") from None
        raise


def _inference_has_the_same_bits(trial: Trial, first: Outcome) -> None:
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
