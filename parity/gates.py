"""When two results agree: the tolerances, and how a disagreement is told.

With R the float64 result, S = max|R| (for a gradient the larger of max|R| and max|cotangent|), D the largest change of R under three random
relative perturbations of size δ, E the largest error of torch in float32 over the example and three neighbours, and u the unit roundoff:

    float64   |numpy − torch| ≤ 1e-9·S + 8·D(1e-12), and the same NaN/inf pattern, shape and dtype
    float32   |numpy − torch| ≤ 1e-5·max(1, S) where well-conditioned, and |numpy − R| ≤ 8·E + 16u·S + 8·D(4u) everywhere

A tensor is ill-conditioned when 8·D(4u) + 3·E > 1e-5·max(1, S).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

U32 = float(np.finfo(np.float32).eps) / 2
EXACT_DELTA = 1e-12
PROMISE = 1e-5
VACUOUS_SHARE = 0.10


class Disagreement(Exception):
    """A law does not hold: which output or gradient, where, what was expected and what came."""

    def __init__(self, label: str, what: str, *, expected: Any = None, got: Any = None, index: tuple[int, ...] | None = None):
        super().__init__(f"{label}: {what}" if label else what)
        self.label, self.what, self.expected, self.got, self.index = label, what, expected, got, index

    def under(self, circumstance: str) -> "Disagreement":
        """The same, told under the circumstance in which it was found."""
        return Disagreement(self.label, f"{circumstance}: {self.what}", expected=self.expected, got=self.got, index=self.index)


@dataclasses.dataclass
class Error:
    """A measured difference of one tensor."""

    label: str
    role: str                   # "forward" or "gradient"
    absolute: float = 0.0
    relative: float = 0.0       # to the tensor's scale
    ulp: float = 0.0
    scale: float = 0.0
    ill_conditioned: bool = False


def same_labels(got: dict[str, Any], want: dict[str, Any]) -> None:
    """The same outputs and gradients by name."""
    if set(got) != set(want):
        raise Disagreement("", f"expected {sorted(want)}, got {sorted(got)}")


def same_form(label: str, got: Any, want: Any) -> None:
    """Shape and kind of dtype agree; integers agree exactly; the NaN/inf pattern of floats agrees."""
    if (got is None) != (want is None):
        raise Disagreement(label, f"expected {_form(want)}, got {_form(got)}", expected=want, got=got)
    if got is None:
        return
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise Disagreement(label, f"expected shape {want.shape}, got {got.shape}", expected=want, got=got)
    if (got.dtype.kind == "f") != (want.dtype.kind == "f") or (got.dtype.kind == "b") != (want.dtype.kind == "b"):
        raise Disagreement(label, f"expected dtype {want.dtype}, got {got.dtype}", expected=want, got=got)
    if got.dtype.kind != "f":
        if not np.array_equal(got, want):
            at = _first(got != want)
            raise Disagreement(label, f"expected exactly {want[at]} at {at}, got {got[at]}", expected=want, got=got, index=at)
        return
    for name, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        differs = test(got) != test(want)
        if differs.any():
            at = _first(differs)
            what = f"another {name} pattern: expected {want[at]} at {at}, got {got[at]}"
            raise Disagreement(label, what, expected=want, got=got, index=at)


def distance(got: NDArray, want: NDArray) -> NDArray:
    """|got − want| in float64, 0 where both are the same infinity or both NaN."""
    with np.errstate(all="ignore"):
        gap = np.abs(got.astype(np.float64) - want.astype(np.float64))
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0.0, gap)


def largest(values: NDArray) -> float:
    """max|finite entries|, 0 if there are none."""
    values = np.abs(np.asarray(values, dtype=np.float64))
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def scale_of(role: str, want: NDArray, cotangent_scale: float) -> float:
    """S of the rule: a gradient is also measured by the cotangent it came from."""
    return max(largest(want), cotangent_scale) if role == "gradient" else largest(want)


def within(label: str, got: Any, want: Any, tolerance: float | Callable[[], float], why: str) -> float:
    """The largest distance; a Disagreement unless it is at most the tolerance (NaN is not)."""
    same_form(label, got, want)
    if got is None or np.asarray(got).dtype.kind != "f" or not np.asarray(got).size:
        return 0.0
    gap = distance(np.asarray(got), np.asarray(want))
    worst = float(gap.max())
    limit = tolerance() if callable(tolerance) else tolerance
    if not worst <= limit:
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape))
        raise Disagreement(
            label,
            f"expected {np.asarray(want)[at]!s}, got {np.asarray(got)[at]!s} at {at} of shape {gap.shape}; "
            f"they differ by {worst:.3g}, allowed is {limit:.3g} ({why})",
            expected=want,
            got=got,
            index=at,
        )
    return worst


def exact64(label: str, role: str, got: Any, want: Any, cotangent_scale: float, change: Callable[[], float]) -> Error:
    """The float64 gate, `change()` being D(1e-12)."""
    error = Error(label, role)
    same_form(label, got, want)
    if got is None or np.asarray(got).dtype.kind != "f":
        return error
    error.scale = scale_of(role, want, cotangent_scale)
    gap = distance(np.asarray(got), np.asarray(want))
    error.absolute = float(gap.max()) if gap.size else 0.0
    error.relative = error.absolute / error.scale if error.scale else error.absolute
    if not error.absolute <= 1e-9 * error.scale:  # the condition number costs six runs of torch: only if it is needed
        within(label, got, want, 1e-9 * error.scale + 8 * change(), "float64 gate: 1e-9·S + 8·D")
        error.ill_conditioned = True
    return error


def single32(
    label: str, role: str, got: Any, single: Any, want: Any, cotangent_scale: float, torch_error: float, change: float
) -> Error:
    """The float32 gate: `got` NumPy's, `single` torch's, `want` the float64 result; torch_error is E, change is D(4u)."""
    error = Error(label, role)
    if got is None or np.asarray(got).dtype.kind != "f":
        same_form(label, got, single)
        return error
    got, single, want = np.asarray(got), np.asarray(single), np.asarray(want)
    error.scale = scale_of(role, want, cotangent_scale)
    allowed = PROMISE * max(1.0, error.scale)
    error.ill_conditioned = not 8 * change + 3 * torch_error <= allowed
    if error.ill_conditioned and not np.isfinite(torch_error):
        return error  # torch itself overflows here: nothing to hold NumPy to
    within(label, got, want, 8 * torch_error + 16 * U32 * error.scale + 8 * change, "float32 against float64: 8·E + 16u·S + 8·D")
    gap = distance(got, single)
    error.absolute = float(gap.max()) if gap.size else 0.0
    error.relative = error.absolute / max(1.0, error.scale)
    if gap.size:
        spacing = np.spacing(np.maximum(np.abs(single[np.isfinite(single)]), np.finfo(np.float32).tiny).astype(np.float32))
        error.ulp = float((gap[np.isfinite(single)] / spacing).max()) if spacing.size else 0.0
    if not error.ill_conditioned:
        within(label, got, single, allowed, "float32 promise: 1e-5·max(1, S)")
    return error


def _first(where: NDArray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])


def _form(value: Any) -> str:
    return "None" if value is None else f"an array of shape {np.shape(value)}"
