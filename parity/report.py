"""The report: a summary, JSON as documented in docs/parity.md, and a table for the terminal."""

import importlib.metadata
import platform
from typing import Any

from rich.console import Console
from rich.table import Table

from parity.laws import LAWS
from parity.registry import Component
from parity.runner import Result

MARK = {"passed": "[green]✓[/]", "failed": "[red]✗[/]"}


def summary(results: list[Result], device: str) -> dict[str, Any]:
    """The head of the JSON report."""
    worst: dict[str, Any] = {}
    for precision in ("float64", "float32"):
        for role in ("forward", "gradient"):
            found = [(r.name, *r.worst(precision, role)) for r in results if r.worst(precision, role)]  # type: ignore[misc]
            if found:
                name, error, example = max(found, key=lambda item: item[1].relative)
                worst[f"{precision} {role}"] = {
                    "component": name,
                    "label": error.label,
                    "relative": error.relative,
                    "absolute": error.absolute,
                    "ulp": error.ulp,
                    "example": example,
                }
    return {
        "components": len(results),
        "passed": sum(r.passed for r in results),
        "failed": sum(not r.passed for r in results),
        "examples": sum(r.examples for r in results),
        "worst": worst,
        "device": device_name(device),
        "versions": versions(),
    }


def to_json(results: list[Result], device: str) -> dict[str, Any]:
    """The whole report."""
    return {"summary": summary(results, device), "components": [r.to_json() for r in results]}


def versions() -> dict[str, str]:
    """What the figures were measured with."""
    known = {"python": platform.python_version()}
    for package in ("byhand", "numpy", "torch", "hypothesis"):
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            known[package] = "not installed as a package"
    return known


def device_name(device: str) -> str:
    """The name of the processor or the card."""
    if device != "cpu":
        import torch

        return f"{device} ({torch.cuda.get_device_name()})"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"cpu ({model})"


def row(result: Result) -> list[str]:
    """One line of the table: name, a mark per group of laws, errors, examples, time."""

    def figure(precision: str, role: str) -> str:
        worst = result.worst(precision, role)
        return f"{worst[0].relative:.0e}" if worst else "–"

    figures = [figure(p, role) for p in ("float64", "float32") for role in ("forward", "gradient")]
    held = sum(v == "passed" for v in result.laws.values())
    apply = sum(not v.startswith("not applicable") for v in result.laws.values())
    status = MARK["passed" if result.passed else "failed"]
    return [status, result.name, f"{held}/{apply}", *figures, str(result.ill_conditioned or ""), f"{result.seconds:.1f}"]


def print_table(results: list[Result], device: str, console: Console) -> None:
    """The table, the failures, and the summary line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("component", no_wrap=True)
    for title in ("laws", "f64 out", "f64 grad", "f32 out", "f32 grad", "ill", "s"):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(*row(result))
    console.print(table)
    for result in results:
        for failure in result.failures:
            console.print(f"[red]✗ {result.name}, law of {failure.law}[/]: {failure.what}", highlight=False)
            console.print(f"  {failure.example}: {failure.shapes}", style="dim", highlight=False)
    total = summary(results, device)
    worst = total["worst"].get("float32 gradient") or total["worst"].get("float32 forward")
    tail = f"; largest float32 error {worst['relative']:.1e} of scale in {worst['component']}" if worst else ""
    console.print(
        f"{total['passed']} of {total['components']} components agree on {total['examples']} examples under {len(LAWS)} laws{tail}. "
        f"Errors are relative to the tensor's scale; the promise is 1e-5 in float32.",
        highlight=False,
    )


def component_table(components: list[Component]) -> str:
    """The README's table, in Markdown: one line a room."""
    rooms: dict[str, list[Component]] = {}
    for component in components:
        rooms.setdefault(component.room, []).append(component)
    lines = ["| room | components |", "|---|---|"]
    for room, members in sorted(rooms.items()):
        names = ", ".join(f"[`{c.public}`](numpy_impl/{c.file.replace('.', '/')}.py)" for c in members)
        lines.append(f"| **{room}** ({len(members)}) | {names} |")
    return "\n".join(lines)
