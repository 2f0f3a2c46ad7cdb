"""Plants every mutant of a component's NumPy source and requires that a law fails: the check that the checks can fail.

The figure is killed / (total − equivalents), 100 % for pullbacks and at least 99 % over all. A mutant counts as killed when a law fails,
when it raises where the clean source does not, when it runs past the time limit or out of memory, or when it crashes the process. An
equivalent is a mutant that no law can see; a case lists it with the reason, and an entry that matches no mutant, or whose mutant is in
fact killed, is stale and fails. A clean source that does not pass is an error: it would "kill" everything.

A mutant of a private helper that several components of a file share is killed by the laws of any of them.
"""

import ast
import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from parity import mutate
from parity.laws import COMPONENT_LAWS, LAWS, TRIAL_LAWS, not_applicable
from parity.mutate import Mutant
from parity.registry import Component, broken, components, select
from parity.runner import EXAMPLES, settings
from parity.trial import Reference, Trial

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(".parity") / "mutants"
LIMIT = 3.0         # seconds of computing a mutant may take, or PATIENCE times the clean source where that is more
PATIENCE = 10.0
CLEAN = 600.0       # seconds of computing the clean source may take, torch's side included
STALLED = 300.0     # seconds without a sign of life beyond the limit: the alarm cannot reach it, the process is ended
MEMORY = 4 << 30    # bytes a mutant may claim beyond what the process holds
ALL = 0.99          # the share of all mutants that must be killed; of the backward ones it is every one

Judge = Callable[[Component, Any], str | None]  # (component, implementation) -> the law that failed, or None


# What came of a component


@dataclasses.dataclass
class Study:
    """The mutants of one component and what killed each (None: it survived)."""

    name: str
    mutants: list[Mutant]
    verdicts: dict[str, str | None]
    equivalent: dict[str, str]
    error: str | None = None
    seconds: float = 0.0
    cached: bool = False

    @property
    def survivors(self) -> list[Mutant]:
        """Those that no law noticed and no entry of the case explains; where the clean source fails, nothing was tried."""
        return [] if self.error else [m for m in self.mutants if self.verdicts.get(m.key) is None and m.key not in self.equivalent]

    @property
    def stale(self) -> dict[str, str]:
        """Entries of the case's table that are not true (any more), and why."""
        known = {m.key for m in self.mutants}
        told = {}
        for key in () if self.error else self.equivalent:
            if key not in known:
                told[key] = "no such mutant"
            elif self.verdicts.get(key) is not None:
                told[key] = f"it is killed, by the {self.verdicts[key]}"
        return told

    def figures(self, where: str) -> dict[str, int]:
        """total, killed and equivalent of the backward or of the forward mutants."""
        own = [m for m in self.mutants if m.where == where]
        killed = sum(self.verdicts.get(m.key) is not None for m in own)
        equivalent = sum(m.key in self.equivalent and self.verdicts.get(m.key) is None for m in own)
        return {"total": len(own), "killed": killed, "equivalent": equivalent}

    def to_json(self) -> dict[str, Any]:
        """One component of the JSON report."""
        told: dict[str, Any] = {"name": self.name, "backward": self.figures("backward"), "forward": self.figures("forward")}
        told["survivors"] = [{"key": m.key, "line": m.line, "operator": m.operator, "where": m.where} for m in self.survivors]
        told["equivalents"] = {key: reason for key, reason in self.equivalent.items() if key not in self.stale}
        told["killed_by"] = dict(collections.Counter(v.split(",")[0] for v in self.verdicts.values() if v is not None).most_common())
        told |= {"stale": self.stale} if self.stale else {}
        told |= {"error": self.error} if self.error else {}
        return told | {"seconds": round(self.seconds, 2), "cached": self.cached}


def summary(studies: list[Study]) -> dict[str, Any]:
    """The sums over all components, and whether the demands hold."""
    told: dict[str, Any] = {"components": len(studies)}
    for where in ("backward", "forward"):
        told[where] = {k: sum(s.figures(where)[k] for s in studies) for k in ("total", "killed", "equivalent")}
    told["all"] = {k: told["backward"][k] + told["forward"][k] for k in ("total", "killed", "equivalent")}
    for part in ("backward", "forward", "all"):
        counted = told[part]["total"] - told[part]["equivalent"]
        told[part]["share"] = told[part]["killed"] / counted if counted else 1.0
    told["errors"] = sum(s.error is not None for s in studies)
    told["stale"] = sum(len(s.stale) for s in studies)
    enough = told["backward"]["share"] == 1 and told["all"]["share"] >= ALL
    told["passed"] = bool(enough and not told["errors"] and not told["stale"])
    told["seconds"] = round(sum(s.seconds for s in studies), 1)
    return told


# Running one mutant


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


def load(source: str, module: str, public: str) -> Any:
    """`public` of a source executed as a module of its own; nothing that is imported elsewhere changes."""
    fresh = types.ModuleType(module)
    fresh.__file__ = f"<mutant of {module}>"
    fresh.__package__ = module.rpartition(".")[0]
    exec(compile(source, fresh.__file__, "exec"), fresh.__dict__)
    return fresh.__dict__[public]


def attempt(source: str, component: Component, judge: Judge, limit: float) -> str | None:
    """What kills this source: the first law that fails, or what it dies of; None if it survives."""
    try:
        with time_limit(limit), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            law = judge(component, load(source, module_of(component), component.public))
    except TimeLimit:
        return "time limit"
    except (RecursionError, MemoryError) as error:
        return type(error).__name__
    except Exception as error:  # already while the file is executed
        return f"loading, {type(error).__name__}: {error}"
    return None if law is None else f"law of {law}"


def module_of(component: Component) -> str:
    """The dotted name of its NumPy file."""
    return f"numpy_impl.{component.file}"


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


@functools.lru_cache(maxsize=6)
def _laws(name: str) -> LawsOf:
    return LawsOf(components()[name])


def harness(component: Component, implementation: Any) -> str | None:
    """The judge: the laws of parity."""
    return _laws(component.name)(implementation)


# Running a component's mutants


def clean_passes(source: str, component: Component, judge: Judge) -> tuple[str | None, float]:
    """What is wrong with the unchanged source (None: nothing), and the seconds that a mutant may take."""
    killed = attempt(source, component, judge, CLEAN)
    if killed is not None:
        return f"the clean source does not pass: {killed} (see `python -m parity run {component.name}`)", 0.0
    started = time.process_time()  # again, now that torch's side is known
    killed = attempt(source, component, judge, CLEAN)
    seconds = time.process_time() - started
    return f"the clean source passes once and not twice: {killed}" if killed else None, max(LIMIT, PATIENCE * seconds)


def verdicts(
    source: str, component: Component, judge: Judge, *, limit: float, siblings: Iterable[Component] = (), skip: Iterable[str] = ()
) -> Iterator[tuple[Mutant, str | None]]:
    """Each mutant with what killed it; `siblings` are the other components of the file, `skip` the keys already known.

    Yields every mutant twice: before it is run (with the verdict RUNNING) and after.
    """
    reached = {c.name: mutate.reached(source, c.public) for c in siblings}
    standards: dict[str, tuple[str | None, float]] = {}  # of the siblings, found out when first needed
    for mutant in mutate.mutants(source, component.public):
        if mutant.key in skip:
            continue
        yield mutant, RUNNING
        verdict = attempt(mutant.source(), component, judge, limit)
        sharing = [c for c in siblings if mutant.within in reached[c.name]] if mutant.within != component.public else []
        for sibling in sharing if verdict is None else ():
            if sibling.name not in standards:
                standards[sibling.name] = clean_passes(source, sibling, judge)
            error, patience = standards[sibling.name]
            verdict = None if error else attempt(mutant.source(), sibling, judge, patience)
            if verdict is not None:
                verdict = f"{verdict}, of {sibling.name}"
                break
        yield mutant, verdict


RUNNING = "running"


def study(source: str, component: Component, judge: Judge, *, limit: float | None = None) -> Study:
    """All mutants of one component, run in this process (which must not mind a crash)."""
    started = time.perf_counter()
    result = Study(component.name, mutate.mutants(source, component.public), {}, dict(component.equivalent))
    result.error, patience = clean_passes(source, component, judge)
    if result.error is None:
        for mutant, verdict in verdicts(source, component, judge, limit=limit or patience):
            if verdict != RUNNING:
                result.verdicts[mutant.key] = verdict
    result.seconds = time.perf_counter() - started
    return result


# Worker processes


def _worker(pipe: Any) -> None:
    """A process that takes (component, keys already known, time limit or None) from the pipe, and None as the end.

    It answers ("clean", (error or None, time limit)) if it was given no limit, then for each mutant ("running", key) and
    ("verdict", (key, what killed it)), and ("end", None).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    with settings():
        components()
        _bound_memory()
        _serve(pipe)


def _serve(pipe: Any) -> None:
    while (job := pipe.recv()) is not None:
        name, known, limit = job
        component = components()[name]
        source = source_of(component)
        siblings = [c for c in components().values() if c.file == component.file and c.name != name]
        if limit is None:
            error, limit = clean_passes(source, component, harness)
            pipe.send(("clean", (error, limit)))
            if error is not None:
                continue
        for mutant, verdict in verdicts(source, component, harness, limit=limit, siblings=siblings, skip=known):
            pipe.send(("running", mutant.key) if verdict == RUNNING else ("verdict", (mutant.key, verdict)))
        pipe.send(("end", None))


def _bound_memory() -> None:
    """A mutant that asks for terabytes gets a MemoryError, and the machine stays usable."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every platform
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))


@dataclasses.dataclass
class _Seat:
    """A worker process and what it is doing."""

    worker: Callable[[Any], None]
    study: Study | None = None
    limit: float | None = None
    running: str | None = None
    heard: float = 0.0
    began: float = 0.0
    process: Any = None
    pipe: Any = None

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=self.worker, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = None

    def give(self, study: Study) -> None:
        self.study, self.limit, self.running, self.began = study, None, None, time.perf_counter()
        self.resume()

    def resume(self) -> None:
        """(Go on with) the component: what has a verdict is not run again."""
        assert self.study is not None
        if self.process is None:
            self.start()
        self.heard = time.perf_counter()
        self.pipe.send((self.study.name, set(self.study.verdicts), self.limit))

    def died(self, what: str) -> bool:
        """The process is gone or hangs where no alarm is heard; that kills the mutant it ran. Whether the component is finished."""
        self.stop()
        assert self.study is not None
        if self.limit is None or self.running is None:
            self.study.error = f"the clean source does not pass: {what}" if self.limit is None else f"between two mutants: {what}"
            return True
        self.study.verdicts[self.running] = what
        self.running = None
        self.resume()
        return False

    def hear(self) -> bool:
        """One message; whether the component is finished."""
        assert self.study is not None
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            return self.died("crash")
        self.heard = time.perf_counter()
        match kind:
            case "clean":
                self.study.error, self.limit = content
                return self.study.error is not None
            case "running":
                self.running = content
            case "verdict":
                key, self.study.verdicts[key] = content[0], content[1]
                self.running = None
        return kind == "end"

    def patience(self) -> float:
        return 20 * (CLEAN if self.limit is None else self.limit) + STALLED


def run_all(
    studies: list[Study], processes: int, tick: Callable[[Study], None], worker: Callable[[Any], None] = _worker
) -> None:
    """Fill in every study, one component to a process at a time, the largest first."""
    waiting = sorted(studies, key=lambda s: len(s.mutants))
    seats = [_Seat(worker) for _ in range(min(processes, len(waiting)))]
    try:
        for seat in seats:
            seat.give(waiting.pop())
        while busy := [seat for seat in seats if seat.study is not None]:
            ready = multiprocessing.connection.wait([seat.pipe for seat in busy], timeout=1.0)
            for seat in busy:
                assert seat.study is not None
                if seat.pipe in ready:
                    finished = seat.hear()
                elif time.perf_counter() - seat.heard > seat.patience():
                    finished = seat.died("time limit")
                else:
                    continue
                if finished:
                    seat.study.seconds = time.perf_counter() - seat.began
                    tick(seat.study)
                    seat.study = None
                    if waiting:
                        seat.give(waiting.pop())
    finally:
        for seat in seats:
            seat.stop()


# What a verdict depends on, and the verdicts kept on disk


def source_of(component: Component) -> str:
    """The text of its NumPy file."""
    return _file_of(module_of(component)).read_text(encoding="utf-8")


def _file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """The modules of this repository that a module imports, also inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_file_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = ("numpy_impl", "torch_impl", "byhand", "parity")
    return frozenset(m for m in found if m.split(".")[0] in ours and m not in ("parity.cases",) and _file_of(m).is_file())


@functools.cache
def _names_in(module: str) -> frozenset[str]:
    """The components that a case file names in strings: what a `play` fetches by name."""
    nodes = ast.walk(ast.parse(_file_of(module).read_text(encoding="utf-8")))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(strings & components().keys())


def dependencies(component: Component) -> set[str]:
    """Every module of this repository on which the verdicts about a component depend."""
    case_file = f"parity.cases.{component.file}"
    seen: set[str] = set()
    waiting = [__name__, case_file]
    for name in {component.name, *_names_in(case_file)}:
        waiting += [f"{side}_impl.{components()[name].file}" for side in ("numpy", "torch")]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imports(module)
    return seen


@functools.cache
def _meaning(module: str) -> str:
    """A file without its comments, docstrings and tables of equivalents: these change no verdict."""
    tree = ast.parse(_file_of(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            del body[0]  # an empty body cannot be run, but it can be printed
        if isinstance(node, ast.Call):
            node.keywords = [k for k in node.keywords if k.arg != "equivalent"]
    return ast.unparse(tree)


def fingerprint(component: Component) -> str:
    """A hash of everything on which the verdicts about a component depend."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{platform.python_version()} {np.__version__} {torch.__version__} {EXAMPLES}".encode())
    for module in sorted(dependencies(component)):
        digest.update(f"\n# {module}\n{_meaning(module)}".encode())
    return digest.hexdigest()


def recall(study: Study, mark: str) -> bool:
    """Take the verdicts of an unchanged component from disk; whether there were any."""
    try:
        kept = json.loads((CACHE / f"{study.name}.json").read_text(encoding="utf-8"))
        if kept["fingerprint"] != mark or kept["verdicts"].keys() != {m.key for m in study.mutants}:
            return False
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    study.verdicts, study.seconds, study.cached = kept["verdicts"], 0.0, True
    return True


def remember(study: Study, mark: str) -> None:
    """Keep the verdicts; a study that went wrong is not kept."""
    if study.error is None:
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = CACHE / f".{study.name}.{os.getpid()}"
        partial.write_text(json.dumps({"fingerprint": mark, "verdicts": study.verdicts}, indent=0), encoding="utf-8")
        partial.replace(CACHE / f"{study.name}.json")


# The command


def run(chosen: list[Component], *, cache: bool = True, processes: int = 2, tick: Callable[[Study], None] = lambda _: None) -> list[Study]:
    """The studies of these components, in their order; `tick` hears of each that is finished."""
    studies, marks = [], {}
    for component in chosen:
        study = Study(component.name, [], {}, dict(component.equivalent))
        studies.append(study)
        try:
            study.mutants = mutate.mutants(source_of(component), component.public)
            marks[study.name] = fingerprint(component)
        except (ImportError, OSError, SyntaxError, ValueError) as error:
            study.error = f"{type(error).__name__}: {error}"
    for study in studies:
        if study.error or (cache and recall(study, marks[study.name])):
            tick(study)

    def finished(study: Study) -> None:
        remember(study, marks[study.name])
        tick(study)

    run_all([s for s in studies if not s.error and not s.cached], processes, finished)
    return studies


def print_report(studies: list[Study], out: Console) -> None:
    """A line a component, the survivors, the stale entries, the figures."""

    def figure(part: dict[str, int]) -> str:
        counted = part["total"] - part["equivalent"]
        return f"[{'green' if part['killed'] == counted else 'red'}]{part['killed']}/{counted}[/]" if counted else "–"

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "component", "backward", "forward", "equivalent", "s"):
        table.add_column(title, justify="left" if title in ("", "component") else "right")
    for study in studies:
        both = study.figures("backward"), study.figures("forward")
        good = not (study.error or study.survivors or study.stale)
        counts = ["error", ""] if study.error else [figure(part) for part in both]
        equivalent = sum(part["equivalent"] for part in both)
        seconds = "cached" if study.cached else f"{study.seconds:.1f}"
        table.add_row("[green]✓[/]" if good else "[red]✗[/]", study.name, *counts, str(equivalent or ""), seconds)
    out.print(table)
    for study in studies:
        if study.error:
            out.print(f"[red]✗ {study.name}[/]: {escape(study.error)}", highlight=False, soft_wrap=True)
        for mutant in study.survivors:
            out.print(
                f"[red]✗ {study.name}[/], line {mutant.line}, {mutant.where}, {mutant.operator}: {escape(mutant.key)}",
                highlight=False, soft_wrap=True,
            )
        for key, why in study.stale.items():
            out.print(f"[red]✗ {study.name}[/], listed as equivalent, but {why}: {escape(key)}", highlight=False, soft_wrap=True)
    total = summary(studies)
    shares = ", ".join(
        f"{told} {total[part]['killed']} of {total[part]['total'] - total[part]['equivalent']} ({_percent(total[part]['share'])})"
        for part, told in (("backward", "killed in pullbacks"), ("all", "in all"))
    )
    demanded = f"Demanded are 100 % in pullbacks and {_percent(ALL)} in all."
    out.print(f"{shares}; {total['all']['equivalent']} listed as equivalent. {demanded}", highlight=False, soft_wrap=True)


def _percent(share: float) -> str:
    """100 % only if it is."""
    return "100 %" if share == 1 else f"{int(share * 1000) / 10:g} %"


def command(names: list[str], json_file: Path | None, cache: bool, out: Console, log: Console) -> int:
    """`python -m parity mutants`: 0 if the demands hold, else 1."""
    chosen = select(names)
    for name, why in broken().items():
        log.print(f"{name} cannot be imported: {why}", style="red", highlight=False, markup=False)
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task = progress.add_task("", total=len(chosen))

        def tick(study: Study) -> None:
            progress.update(task, description=study.name, advance=1)

        studies = run(chosen, cache=cache, tick=tick)
    print_report(studies, out)
    if json_file:
        report = {"summary": summary(studies), "components": [study.to_json() for study in studies]}
        json_file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if summary(studies)["passed"] and not broken() else 1
