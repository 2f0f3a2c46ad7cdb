"""A reader's own function in the place of ours: loaded from a file, run in a process of its own, and explained like a teacher would."""

import difflib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from parity import teacher
from parity.gates import Disagreement
from parity.laws import FOR_OTHERS, TRIAL_LAWS
from parity.registry import Component, find
from parity.runner import Failure, run_component, settings, shapes_of
from parity.trial import Reference, Trial
from parity.values import Example, Hypothesis, walk

SMALLEST = {"max_examples": 400, "deadline": None, "database": None, "derandomize": True}


def judge(target: str, against: str, *, examples: int, seed: int, limit: float) -> dict[str, Any]:
    """The verdict on FILE.py:FUNCTION as documented in docs/parity.md: {"passed", "component", "laws", "explanation"}.

    The function runs in a process of its own, so that one that hangs, crashes or exits is told as such.

    Raises
    ------
    ValueError   if `target` names no function, or `against` no component
    """
    component = find(against)
    path, _, name = target.rpartition(":")
    if not path.endswith(".py") or not name:
        raise ValueError(f"parity check needs FILE.py:FUNCTION; got {target!r}")
    if not Path(path).is_file():
        raise ValueError(f"parity check needs a file that exists; got {path!r}")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "parity.yours", path, name, component.name, str(examples), str(seed), str(answer)]
        import parity

        root = str(Path(parity.__file__).parent.parent)
        known = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
        try:
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            child = subprocess.run(command, timeout=limit, check=False, env=known, **pipes)
        except subprocess.TimeoutExpired:
            return _verdict(component, f"{name} did not finish within {limit:g} s. Does a loop never end? (--limit allows more time)")
        sys.stderr.write(child.stdout)  # what the reader's own code printed
        if answer.is_file():
            found = json.loads(answer.read_text(encoding="utf-8"))
            if "usage" in found:
                raise ValueError(found["usage"])
            return found
        return _verdict(component, f"{name} ended the process that ran it, with exit code {child.returncode}")


def _verdict(component: Component, explanation: str, laws: dict[str, str] | None = None) -> dict[str, Any]:
    return {"passed": not explanation, "component": component.name, "laws": laws or {}, "explanation": explanation}


def _child(path: str, name: str, against: str, examples: str, seed: str, answer: str) -> None:
    component = find(against)
    try:
        implementation = _load(path, name)
    except Exception as error:  # whatever the reader's file raises is an answer, not a crash of ours
        found = {"usage": str(error)} if isinstance(error, ValueError) else _verdict(component, f"{path} raised {_told(error)}")
    else:
        with settings():
            result = run_component(component, examples=int(examples), seed=int(seed), implementation=implementation, laws=FOR_OTHERS)
            explanation = explain(component, implementation, name, _plainest(result.failures)) if result.failures else ""
        found = _verdict(component, explanation, result.laws)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def _load(path: str, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        near = difflib.get_close_matches(name, [n for n in vars(module) if callable(getattr(module, n))], n=1)
        raise ValueError(f"parity check needs a function in {path}; got {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return getattr(module, name)


def _plainest(failures: list[Failure]) -> Failure:
    """The first failure on plain values and shapes: what breaks only at size 0 or at 1e3 is a later lesson."""
    return next((failure for failure in failures if failure.ordinary), failures[0])


def explain(component: Component, implementation: Any, name: str, failure: Failure) -> str:
    """The first failure, on the smallest example that shows it."""
    wrong, shapes, trial = failure.wrong, failure.shapes, None
    if failure.law in TRIAL_LAWS:
        example = smallest(component, implementation, failure.law, ordinary=failure.ordinary)
        if example is not None:
            trial = Trial(Reference(component, example), implementation)
            shapes = shapes_of(trial.reference.inputs)
            try:
                TRIAL_LAWS[failure.law](trial)
            except Disagreement as again:
                wrong = again
            except Exception as error:
                wrong = Disagreement("", f"it raised {_told(error)}")
    gradient = wrong.label.startswith(("d", "grads."))
    part = f"the gradient {wrong.label}" if gradient else f"the output {wrong.label}" if wrong.label else "the call"
    lines = [f"{name} breaks the law of {failure.law}: {_sentence(failure.law)}", f"Where: {part}: {wrong.what}"]
    if shapes:
        lines.append(f"Smallest input that shows it: {shapes}")
    for title, value in (("expected", wrong.expected), ("got", wrong.got)):
        if value is not None and np.size(value) <= 36:
            lines.append(f"{title}:\n{np.array2string(np.asarray(value), precision=6, suppress_small=False)}")
    arrays = [v.shape for _, v in walk(trial.reference.inputs) if isinstance(v, np.ndarray)] if trial else []
    found = teacher.hints(wrong.expected, wrong.got, gradient=gradient, sizes=teacher.counts(arrays))
    found += _by_law(failure.law, wrong.what)
    lines += [f"What this usually means: {hint}." for hint in found[:3]]
    return "\n".join(lines)


def smallest(component: Component, implementation: Any, law: str, *, ordinary: bool) -> Example | None:
    """The smallest (ordinary or hostile) example hypothesis finds on which the law fails."""
    import hypothesis
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    @st.composite
    def examples(draw: Any) -> Example:
        return component.example(f"smallest {draw(st.integers(0, 50))}", Hypothesis(draw, ordinary=ordinary))

    def fails(example: Example) -> bool:
        try:
            TRIAL_LAWS[law](Trial(Reference(component, example), implementation))
        except Exception:
            return True
        return False

    try:
        return hypothesis.find(examples(), fails, settings=hypothesis.settings(**SMALLEST))  # type: ignore[arg-type]
    except NoSuchExample:
        return None


def _sentence(law: str) -> str:
    return (TRIAL_LAWS[law].__doc__ or "").split("\n")[0] if law in TRIAL_LAWS else (_component_law(law).__doc__ or "").split("\n")[0]


def _component_law(law: str) -> Any:
    from parity.laws import COMPONENT_LAWS

    return COMPONENT_LAWS[law]


def _by_law(law: str, what: str) -> list[str]:
    if "should return" in what or "TypeError" in what:
        return ["the call differs from ours: the same arguments in the same order, (y, backward) back, and one gradient per array"]
    if law == "linear":
        return ["backward must use dy, once, in every term: something is added that does not depend on it, or it enters squared"]
    if law == "repeatable":
        return ["backward or forward writes into an array it was given (`x -= …`, `out=x`); work on a copy, or write `x = x - …`"]
    if law == "witness":
        return ["the gradient is not the derivative of this forward, although it may be that of another"]
    if law == "float32":
        return ["the formula is right and its arithmetic is not: a cancellation, an overflow, or too low a precision inside"]
    if law == "typed":
        return ["a NumPy scalar (np.sqrt(2), arr.sum()) or a Python list turned float32 into float64, or a reduction gave a scalar"]
    return []


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    _child(*sys.argv[1:])
