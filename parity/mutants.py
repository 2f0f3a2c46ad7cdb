"""Plants every mutant of a component's NumPy source and requires that a law fails: the check that the checks can fail.

The figure is killed / (total − equivalents), 100 % for pullbacks and at least 99 % over all. A mutant counts as killed when a law fails,
when it raises where the clean source does not, when it runs past the time limit or out of memory, or when it crashes the process. An
equivalent is a mutant that no law can see; a case lists it with the reason, and an entry that matches no mutant, or whose mutant is in
fact killed, is stale and fails. A clean source that does not pass is an error: it would "kill" everything.

A mutant of a private helper that several components of a file share is killed by the laws of any of them; a file that holds no component,
the base class of the optimizers say, is a row of its own, judged by the components that import it.
"""

import ast
import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from parity import mutate
from parity.registry import broken, components, select
from parity.runner import EXAMPLES
from parity.study import ALL, Study, Subject, imports, of_component, shared, summary, text_of
from parity.workers import run_all

CACHE = Path(".parity") / "mutants"

# Shared files that are not mutated, with what watches them instead.
ELSEWHERE: dict[str, str] = {}


# What a verdict depends on, and the verdicts kept on disk


@functools.cache
def _names_in(module: str) -> frozenset[str]:
    """The components that a case file names in strings: what a `play` fetches by name."""
    nodes = ast.walk(ast.parse(text_of(module)))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(strings & components().keys())


def dependencies(subject: Subject) -> set[str]:
    """Every module of this repository on which the verdicts about a subject depend."""
    seen: set[str] = set()
    waiting = ["parity.workers", subject.module]
    for judge in subject.judges:
        case_file = f"parity.cases.{judge.file}"
        waiting.append(case_file)
        for name in {judge.name, *_names_in(case_file)}:
            waiting += [f"{side}_impl.{components()[name].file}" for side in ("numpy", "torch")]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imports(module)
    return seen


@functools.cache
def _meaning(module: str) -> str:
    """A file without its comments, docstrings and tables of equivalents: these change no verdict."""
    tree = ast.parse(text_of(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            del body[0]  # an empty body cannot be run, but it can be printed
        if isinstance(node, ast.Call):
            node.keywords = [k for k in node.keywords if k.arg != "equivalent"]
    return ast.unparse(tree)


def fingerprint(subject: Subject) -> str:
    """A hash of everything on which the verdicts about a subject depend."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{platform.python_version()} {np.__version__} {torch.__version__} {EXAMPLES}".encode())
    for module in sorted(dependencies(subject)):
        digest.update(f"\n# {module}\n{_meaning(module)}".encode())
    return digest.hexdigest()


def recall(study: Study, mark: str) -> bool:
    """Take the verdicts of an unchanged component from disk; whether there were any."""
    try:
        kept = json.loads(_kept(study).read_text(encoding="utf-8"))
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
        partial = _kept(study).with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"fingerprint": mark, "verdicts": study.verdicts}, indent=0), encoding="utf-8")
        partial.replace(_kept(study))


def _kept(study: Study) -> Path:
    return CACHE / f"{study.name.replace('/', '.')}.json"


# The command


def run(chosen: list[Subject], *, cache: bool = True, processes: int = 2, tick: Callable[[Study], None] = lambda _: None) -> list[Study]:
    """The studies of these subjects, in their order; `tick` hears of each that is finished."""
    studies, marks = [], {}
    for subject in chosen:
        study = Study(subject.name, [], {}, subject.equivalent)
        studies.append(study)
        try:
            study.mutants = mutate.mutants(text_of(subject.module), *subject.publics)
            marks[study.name] = fingerprint(subject)
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


def chosen_by(names: list[str]) -> list[Subject]:
    """The subjects that the names mean: components, files, rooms; a room (or no name) also means the files its components share."""
    known = {file: subject for file, subject in shared().items() if file not in ELSEWHERE}
    named = {name.removeprefix("numpy_impl/") for name in names}
    files = [file for file in known if not names or file in named or file.split("/")[0] in named]
    others = [name for name in names if name.removeprefix("numpy_impl/") not in known]
    chosen = select(others) if others or not names else []
    return [*map(of_component, chosen), *(known[file] for file in files)]


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
    chosen = chosen_by(names)
    for name, why in broken().items():
        log.print(f"{name} cannot be imported: {why}", style="red", highlight=False, markup=False)
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        task = progress.add_task("", total=len(chosen))

        def tick(study: Study) -> None:
            progress.update(task, description=study.name, advance=1)

        studies = run(chosen, cache=cache, tick=tick)
    print_report(studies, out)
    for file, why in {} if names else ELSEWHERE.items():
        log.print(f"not mutated: {file}, {why}", style="dim", highlight=False)
    if json_file:
        report = {"summary": summary(studies), "components": [study.to_json() for study in studies]}
        json_file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if summary(studies)["passed"] and not broken() else 1
