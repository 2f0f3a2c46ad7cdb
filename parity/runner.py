"""Every law on many examples of a component, and what came of it."""

import contextlib
import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from parity import gates
from parity.gates import Disagreement
from parity.laws import COMPONENT_LAWS, LAWS, TRIAL_LAWS, not_applicable
from parity.registry import Component
from parity.trial import Reference, Trial
from parity.values import walk

EXAMPLES = 20
FLOAT32_LAWS = ("float32", "typed", "repeatable", "distribution", "refusals", "state")


@dataclasses.dataclass
class Failure:
    """The first example on which a law failed."""

    law: str
    what: str
    example: str
    shapes: str
    wrong: Disagreement
    ordinary: bool = False      # whether plain values of plain shapes showed it


@dataclasses.dataclass
class Result:
    """What the laws said of one component."""

    name: str
    room: str
    kind: str
    laws: dict[str, str]
    failures: list[Failure]
    examples: int
    errors: list[tuple[str, gates.Error, str]]       # (precision, error, example)
    seconds: float
    device: str = "cpu"

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def ill_conditioned(self) -> int:
        """Examples in which some tensor was too ill-conditioned for the promise to be meant."""
        return len({example for precision, error, example in self.errors if precision == "float32" and error.ill_conditioned})

    def worst(self, precision: str, role: str) -> tuple[gates.Error, str] | None:
        """The largest error, relative to scale, over well-conditioned tensors, and its example."""
        found = [(e, x) for p, e, x in self.errors if p == precision and e.role == role and not e.ill_conditioned]
        return max(found, key=lambda pair: pair[0].relative) if found else None

    def to_json(self) -> dict[str, Any]:
        """As documented in docs/parity.md."""
        measured: dict[str, Any] = {}
        for precision in ("float64", "float32"):
            figures: dict[str, Any] = {}
            for role in ("forward", "gradient"):
                worst = self.worst(precision, role)
                figures[role] = worst[0].relative if worst else None
                figures[f"{role}_absolute"] = max(
                    (e.absolute for p, e, _ in self.errors if (p, e.role) == (precision, role) and not e.ill_conditioned), default=None
                )
                figures[f"{role}_ulp"] = worst[0].ulp if worst and precision == "float32" else None
                figures[f"{role}_worst"] = {"label": worst[0].label, "example": worst[1]} if worst else None
            measured[precision] = figures
        return {
            "name": self.name,
            "room": self.room,
            "kind": self.kind,
            "status": "passed" if self.passed else "failed",
            "laws": self.laws,
            "examples": self.examples,
            **measured,
            "ill_conditioned": self.ill_conditioned,
            "device": self.device,
            "failures": [{"law": f.law, "what": f.what, "example": f.example, "shapes": f.shapes} for f in self.failures],
            "seconds": round(self.seconds, 3),
        }


@contextlib.contextmanager
def settings(device: str = "cpu") -> Iterator[None]:
    """One torch thread, and on a GPU IEEE matrix products and convolutions and deterministic algorithms."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on CUDA ask for
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    if device != "cpu":
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def run_component(
    component: Component,
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
    device: str = "cpu",
    precision: str | None = None,
    implementation: Any = None,
    references: list[Reference] | None = None,
    laws: Iterable[str] | None = None,
) -> Result:
    """Every law (or only `laws`) on `examples` examples of a census; one failing example a law is enough.

    precision : "float32" or "float64" keeps only the laws that speak of it;  implementation : stands in for our NumPy side
    """
    started = time.perf_counter()
    wanted = [law for law in (laws or LAWS) if precision is None or (law in FLOAT32_LAWS) == (precision == "float32")]
    verdicts = {law: f"not applicable: {why}" for law in wanted if (why := not_applicable(component, law))}
    wanted = [law for law in wanted if law not in verdicts]
    failures: list[Failure] = []
    errors: list[tuple[str, gates.Error, str]] = []
    if references is None:
        references = [Reference(component, example, device) for example in component.census(examples, seed)]
    trials = [Trial(reference, implementation) for reference in references]

    def judge(law: str, call: Callable[[], None], example: str, shapes: str, ordinary: bool = False) -> bool:
        """Note what the law said; False once it has failed."""
        try:
            call()
            verdicts.setdefault(law, "passed")
            return True
        except Disagreement as wrong:
            verdicts[law] = "failed"
            failures.append(Failure(law, str(wrong), example, shapes, wrong, ordinary))
        except Exception as error:
            verdicts[law] = "failed"
            what = f"{type(error).__name__}: {error}"
            failures.append(Failure(law, what, example, shapes, Disagreement("", what), ordinary))
        return False

    for law in (law for law in TRIAL_LAWS if law in wanted):
        for trial in sorted(trials, key=lambda trial: not trial.reference.example.ordinary):  # a plain failure teaches more
            example = trial.reference.example
            if not judge(law, functools.partial(TRIAL_LAWS[law], trial), example.key, shapes_of(trial.reference.inputs), example.ordinary):
                break
    for trial in trials:
        errors += [(precision_, error, trial.reference.example.key) for precision_, error in trial.errors]
    for law in (law for law in COMPONENT_LAWS if law in wanted):
        judge(law, functools.partial(COMPONENT_LAWS[law], component, implementation, device, seed), f"{component.name}/{law}", "")
    for law, what in _vacuous(trials, errors):
        if verdicts.get(law) == "passed":
            verdicts[law] = "failed"
            failures.append(Failure(law, what, component.name, "", Disagreement("", what)))
    ordered = {law: verdicts[law] for law in LAWS if law in verdicts}
    seconds = time.perf_counter() - started
    return Result(component.name, component.room, component.kind, ordered, failures, len(trials), errors, seconds, device)


def shapes_of(inputs: Any) -> str:
    """The example as a reader wants it: shapes of arrays, values of everything else."""
    parts = []
    for name, value in walk(inputs):
        parts.append(f"{name}{tuple(value.shape)}" if isinstance(value, np.ndarray) else f"{name}={value!r}")
    return ", ".join(parts)


def _vacuous(trials: list[Trial], errors: list[tuple[str, gates.Error, str]]) -> Iterator[tuple[str, str]]:
    """What would make a pass worth nothing: promises never meant, gradients always zero."""
    ordinary = {t.reference.example.key: t for t in trials if t.reference.example.ordinary}
    judged = [error for precision, error, key in errors if precision == "float32" and key in ordinary]
    ill = [error for error in judged if error.ill_conditioned]
    if judged and len(ill) > gates.VACUOUS_SHARE * len(judged):
        labels = ", ".join(sorted({error.label for error in ill})[:5])
        yield "float32", f"vacuous: {len(ill)} of {len(judged)} tensors of ordinary examples are ill-conditioned ({labels})"
    if len(ordinary) >= 5:
        with contextlib.suppress(Exception):  # an implementation that cannot run has failed its laws already
            seen: dict[str, bool] = {}
            for trial in ordinary.values():
                for label, grad in trial.exact.gradients.items():
                    if grad is not None:
                        seen[label] = seen.get(label, False) or bool(np.any(grad))
            for label in (label for label, moved in seen.items() if not moved):
                yield "gradient", f"vacuous: {label} is 0 in every ordinary example"
