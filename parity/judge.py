"""Runs one mutant: loads it in the place of the clean source, and asks the laws."""

import collections
import contextlib
import functools
import importlib
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from parity import mutate
from parity.laws import COMPONENT_LAWS, LAWS, TRIAL_LAWS, not_applicable
from parity.mutate import Mutant
from parity.registry import Component, components
from parity.runner import EXAMPLES
from parity.study import Study, Subject, imports, module_of
from parity.trial import Reference, Trial

LIMIT = 3.0     # seconds of computing a mutant may take, or PATIENCE times the clean source where that is more
PATIENCE = 10.0
CLEAN = 600.0   # seconds of computing the clean source may take, torch's side included
RUNNING = "running"

Judge = Callable[[Component, Any], str | None]  # (component, implementation) -> the law that failed, or None


class TimeLimit(BaseException):
    """The mutant ran too long. Not an Exception, so that no law takes it for an answer."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit in this (main) thread after so many seconds of computing, and again every second until it is heard.

    Time on the processor is what counts, so that a busy machine kills no mutant; one that only waits is ended later, by the clock.
    """
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds + 10))

    def ring(*_: object) -> None:
        raise TimeLimit

    previous = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, length in timers:
        signal.setitimer(timer, length, 1.0)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, previous, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def loaded(source: str, module: str, component: Component) -> Iterator[Any]:
    """The component's function or class with `source` in the place of `module`; what was imported before stays as it is.

    Where `module` is a file that components share, all that build on it are new inside: whoever asks for another component while this one
    is judged (a case that puts an adapter on a layer, say) gets one that knows the same classes, as isinstance wants it.
    """
    fresh = types.ModuleType(module)
    fresh.__file__, fresh.__package__ = f"<mutant of {module}>", module.rpartition(".")[0]
    code = compile(source, fresh.__file__, "exec")
    if module == module_of(component):
        exec(code, fresh.__dict__)
        yield fresh.__dict__[component.public]
        return
    # What is first imported while modules are set aside is forgotten afterwards, and another import would make it anew. So the component
    # is imported before, with all that it needs: only what depends on the mutant is made twice.
    importlib.import_module(module_of(component))
    with _set_aside({name for name in list(sys.modules) if name == module or _depends(name, module)}):
        sys.modules[module] = fresh
        exec(code, fresh.__dict__)
        yield getattr(importlib.import_module(module_of(component)), component.public)


@functools.cache
def _depends(name: str, module: str) -> bool:
    """Whether one NumPy file imports another, by whatever way."""
    if not name.startswith("numpy_impl."):
        return False
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += [m for m in imports(current) if m.startswith("numpy_impl.")]
    return module in seen - {name}


@contextlib.contextmanager
def _set_aside(names: set[str]) -> Iterator[None]:
    """Imports inside see these modules anew; afterwards everything is as it was."""
    kept = {name: sys.modules.pop(name) for name in names}
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("numpy_impl."):
                del sys.modules[name]
        sys.modules.update(kept)
        for name, module in kept.items():
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)


def attempt(source: str, module: str, component: Component, judge: Judge, limit: float) -> str | None:
    """What kills this source of `module`: the first law that fails, or what it dies of; None if it survives."""
    try:
        with time_limit(limit), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            with loaded(source, module, component) as implementation:
                law = judge(component, implementation)
    except TimeLimit:
        return "time limit"
    except (RecursionError, MemoryError) as error:
        return type(error).__name__
    except Exception as error:  # already while the file is executed
        return f"loading, {type(error).__name__}: {error}"
    return None if law is None else f"law of {law}"


class LawsOf:
    """A component's laws in the order in which they kill soonest, with torch's side computed once for all its mutants."""

    def __init__(self, component: Component, examples: int = EXAMPLES):
        self.component = component
        self.references = [Reference(component, example) for example in component.census(examples)]
        self.laws = [law for law in LAWS if not not_applicable(component, law)]
        self.cost: dict[str, float] = {}  # seconds a law takes where nothing fails

    def __call__(self, implementation: Any) -> str | None:
        """The name of the first law that fails, or None."""
        cost: dict[str, float] = collections.defaultdict(float)
        for law, call in self._in_order(implementation):
            started = time.process_time()
            try:
                call()
            except (RecursionError, MemoryError):
                raise
            except Exception:
                return law
            cost[law] += time.process_time() - started
        self.cost = cost
        return None

    def _in_order(self, implementation: Any) -> Iterator[tuple[str, Callable[[], None]]]:
        """Outputs and gradients, example by example, see nearly everything; then the other laws, the cheapest first."""
        trials = [Trial(reference, implementation) for reference in self.references]
        first = [law for law in ("forward", "gradient") if law in self.laws]
        for trial in trials:
            yield from ((law, functools.partial(TRIAL_LAWS[law], trial)) for law in first)
        for law in sorted((law for law in self.laws if law not in first), key=lambda law: self.cost.get(law, 0.0)):
            if law in TRIAL_LAWS:
                yield from ((law, functools.partial(TRIAL_LAWS[law], trial)) for trial in trials)
            else:
                yield law, functools.partial(COMPONENT_LAWS[law], self.component, implementation)


@functools.lru_cache(maxsize=32)
def _laws(name: str) -> LawsOf:
    return LawsOf(components()[name])


def harness(component: Component, implementation: Any) -> str | None:
    """The judge: the laws of parity."""
    return _laws(component.name)(implementation)


class UnfitJudge(Exception):
    """A component whose laws the unchanged source does not pass."""


def clean_passes(source: str, subject: Subject, component: Component, judge: Judge) -> tuple[str | None, float]:
    """What is wrong with the unchanged source (None: nothing), and the seconds that a mutant may take."""
    killed = attempt(source, subject.module, component, judge, CLEAN)
    if killed is not None:
        return f"the clean source does not pass: {killed} (see `python -m parity run {component.name}`)", 0.0
    started = time.process_time()  # again, now that torch's side is known
    killed = attempt(source, subject.module, component, judge, CLEAN)
    seconds = time.process_time() - started
    return f"the clean source passes once and not twice: {killed}" if killed else None, max(LIMIT, PATIENCE * seconds)


def verdicts(
    source: str, subject: Subject, judge: Judge, *, limit: float, skip: Iterable[str] = ()
) -> Iterator[tuple[Mutant, str | None]]:
    """Each mutant with what killed it, twice: before it is run (with the verdict RUNNING) and after; not those whose keys to `skip`.

    `limit` is the first judge's; what the others need is found out when they are first needed.

    Raises
    ------
    UnfitJudge   where the unchanged source does not pass another judge's laws: what he would have killed must not count as survived
    """
    first = subject.judges[0]
    standards: dict[str, tuple[str | None, float]] = {first.name: (None, limit)}
    kills: collections.Counter[str] = collections.Counter()
    for mutant in mutate.mutants(source, *subject.publics):
        if mutant.key in skip:
            continue
        yield mutant, RUNNING
        verdict = None
        # Of a shared file, one component may use most of it, and the others only pass time: who has killed most is asked first.
        for component in sorted(subject.judges_of(mutant, source), key=lambda judge: -kills[judge.name]):
            if component.name not in standards:
                standards[component.name] = clean_passes(source, subject, component, judge)
            error, patience = standards[component.name]
            if error:
                raise UnfitJudge(f"judged by {component.name}, {error}")
            verdict = attempt(mutant.source(), subject.module, component, judge, patience)
            if verdict is not None:
                verdict += "" if component is first else f", of {component.name}"
                kills[component.name] += 1
                break
        yield mutant, verdict


def study(source: str, subject: Subject, judge: Judge, *, limit: float | None = None) -> Study:
    """All mutants of one subject, run in this process (which must not mind a crash)."""
    started = time.perf_counter()
    result = Study(subject.name, mutate.mutants(source, *subject.publics), {}, dict(subject.equivalent))
    result.error, patience = clean_passes(source, subject, subject.judges[0], judge)
    if result.error is None:
        try:
            for mutant, verdict in verdicts(source, subject, judge, limit=limit or patience):
                if verdict != RUNNING:
                    result.verdicts[mutant.key] = verdict
        except UnfitJudge as unfit:
            result.error = str(unfit)
    result.seconds = time.perf_counter() - started
    return result
