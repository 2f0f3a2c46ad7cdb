"""The command line: `python -m parity list | run | mutants | mirror | check | table`.

Results go to stdout, logs and progress to stderr. Exit 0: all agree; 1: a disagreement; 2: wrong usage; 130: interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

app = cyclopts.App(
    name="parity",
    help="Check that the NumPy and the PyTorch implementation of every component agree.",
    version_flags=(),
    result_action="return_value",
)
out, log = Console(width=None if sys.stdout.isatty() else 120), Console(stderr=True)  # a file has no width: tables need some

MARKERS = "<!-- components:start -->", "<!-- components:end -->"


def main(tokens: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return int(app(tokens, exit_on_error=False, print_error=False, console=log) or 0)
    except cyclopts.CycloptsError as error:
        log.print(f"[red]{error}[/]", highlight=False)
        return 2
    except ValueError as error:
        log.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        log.print("interrupted")
        return 130
    except SystemExit as stop:  # how cyclopts passes an interrupt on
        return int(stop.code or 0)


@app.command(name="list")
def list_(*, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """List every component.

    Parameters
    ----------
    json_:
        Print JSON instead of a table.
    """
    from parity.registry import components

    known = [{"name": c.name, "room": c.room, "kind": c.kind} for c in components().values()]
    if json_:
        print(json.dumps({"components": known}, indent=1))
        return 0
    for room in dict.fromkeys(c["room"] for c in known):
        members = [f"{c['name'].split('.')[1]}" for c in known if c["room"] == room]
        out.print(f"[bold]{room}[/] ({len(members)}): {', '.join(members)}", highlight=False)
    return 0


@app.command
def run(
    *names: str,
    device: Literal["cpu", "cuda"] = "cpu",
    dtype: Literal["float32", "float64", "both"] = "both",
    examples: int = 20,
    seed: int = 0,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    html: Path | None = None,
) -> int:
    """Check components under every law and report.

    Parameters
    ----------
    names:
        Components, files or rooms; all by default.
    device:
        Where the torch side runs.
    dtype:
        Only the laws of one precision.
    examples:
        Examples per component; half of them ordinary, half with hostile values.
    seed:
        Of the census of examples.
    json_:
        Write the report as JSON.
    html:
        Write the report as one self-contained page.
    """
    from byhand.checks import size
    from parity import report
    from parity.registry import select
    from parity.runner import run_component, settings

    size("parity run", examples=examples)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("parity run --device cuda needs a CUDA device that torch sees; got none")
    chosen = [component for component in select(names) if not _told_missing(component)]
    complete = len(chosen) == len(select(names))
    results = []
    with settings(device), _progress() as progress:
        task = progress.add_task("", total=len(chosen))
        for component in chosen:
            progress.update(task, description=component.name)
            precision = None if dtype == "both" else dtype
            results.append(run_component(component, examples=examples, seed=seed, device=device, precision=precision))
            progress.advance(task)
    report.print_table(results, device, out)
    if json_:
        json_.write_text(json.dumps(_finite(report.to_json(results, device)), indent=1) + "\n", encoding="utf-8")
    if html:
        from parity.page import page

        html.write_text(page(report.to_json(results, device)), encoding="utf-8")
    return 0 if all(r.passed for r in results) and complete and not _told_broken() else 1


@app.command
def mutants(
    *names: str,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    cache: bool = True,
) -> int:
    """Plant every mutant of the NumPy source and require that a law fails.

    Parameters
    ----------
    names:
        Components, files or rooms; all by default.
    json_:
        Write the figures as JSON.
    cache:
        Reuse the results of components whose source has not changed.
    """
    from parity.mutants import command

    return command(list(names), json_, cache, out, log)


@app.command
def mirror() -> int:
    """Check that both sides and the cases hold the same names with the same signatures."""
    from parity.mirror import EXEMPT, faults
    from parity.registry import components

    found = faults()
    for fault in found:
        out.print(fault, highlight=False, markup=False)
    for name, reason in EXEMPT.items():
        log.print(f"exempt: {name}, {reason}", style="dim", highlight=False)
    if not found:
        out.print(f"complete: {len(components())} components, each in numpy_impl, in torch_impl and in parity/cases", highlight=False)
    return 1 if found else 0


@app.command
def check(
    target: str,
    *,
    against: str,
    examples: int = 20,
    seed: int = 0,
    limit: float = 120.0,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Check your own NumPy function in the place of ours, under every law, and explain the first failure.

    Parameters
    ----------
    target:
        FILE.py:FUNCTION; it returns (y, backward) and has our component's signature.
    against:
        The component it implements.
    examples:
        Examples per law.
    seed:
        Of the census of examples.
    limit:
        Seconds after which a function counts as hanging.
    json_:
        Write the verdict as JSON.
    """
    from byhand.checks import positive, size
    from parity.yours import judge

    size("parity check", examples=examples)
    positive("parity check", limit=limit)
    found = judge(target, against, examples=examples, seed=seed, limit=limit)
    for law, verdict in found["laws"].items():
        log.print(f"{law}: {verdict}", style="dim", highlight=False)
    if found["passed"]:
        held = sum(verdict == "passed" for verdict in found["laws"].values())
        out.print(f"[green]✓[/] {target} agrees with {found['component']} under all {held} laws that apply", highlight=False)
    else:
        out.print("[red]✗[/] ", end="")
        out.print(found["explanation"], highlight=False, markup=False, soft_wrap=True)
    if json_:
        json_.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found["passed"] else 1


@app.command
def table(*, write: bool = False, readme: Path = Path("README.md")) -> int:
    """Print the README's table of components.

    Parameters
    ----------
    write:
        Put it between the markers of the README instead.
    readme:
        The file that --write changes.
    """
    from parity.registry import components
    from parity.report import component_table

    text = component_table(list(components().values()))
    if not write:
        print(text)
        return 0
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


def with_table(page: str, text: str) -> str:
    """`page` with `text` between the markers."""
    start, end = MARKERS
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"parity table needs {start} and {end} once each in the page; got {page.count(start)} and {page.count(end)}")
    return f"{page[: page.index(start)]}{start}\n{text}\n{page[page.index(end) :]}"


def _told_missing(component: Any) -> bool:
    for side in ("numpy", "torch"):
        try:
            component.implementation(side)
        except (ImportError, AttributeError, SyntaxError) as error:
            log.print(f"{component.name} is missing in {side}_impl: {error}", style="red", highlight=False, markup=False)
            return True
    return False


def _told_broken() -> bool:
    from parity.registry import broken

    for name, why in broken().items():
        log.print(f"{name} cannot be imported: {why}", style="red", highlight=False, markup=False)
    return bool(broken())


def _progress() -> Progress:
    columns = TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=log, transient=True, disable=not sys.stderr.isatty())


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value
