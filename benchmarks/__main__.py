"""`python -m benchmarks [NAME…]`: every component and whole workloads, NumPy against PyTorch and other libraries, on the CPU and a GPU.

`python -m benchmarks attention | decode | finetune | memory | moe | quantize`: the rooms' own studies, which ask more of one subject.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.progress import track

from benchmarks.studies.commands import COMMANDS, log, out
from benchmarks.workload import Size
from byhand.run_directory import write_whole

app = cyclopts.App(name="benchmarks", help=__doc__.split("\n")[0], version_flags=(), result_action="return_value")
for _command in COMMANDS:
    app.command(_command)


@app.default
def run(
    *names: str,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    sizes: Size = "medium",
    threads: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    rounds: int = 3,
    seconds: float = 0.08,
    compiled: bool = True,
    peers: bool = True,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    compare: Path | None = None,
    reuse: Path | None = None,
    plots: Path | None = None,
    docs: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    verbose: bool = False,
) -> int:
    """Time NumPy against PyTorch and other libraries, side by side.

    Parameters
    ----------
    names:
        Only these: the groups components, workloads and scaling, components, files and rooms, or the beginning of a workload's name.
    only:
        The same as names.
    sizes:
        small (minutes), medium, or large (for a big machine or a GPU).
    threads:
        Measure every row at these numbers of threads; by default components at 1, whole workloads at 1 and 2.
    rounds:
        How often the processes take turns.
    seconds:
        Of one column's turn; it runs at least once.
    compiled:
        Whether torch.compile is measured, which has to compile first.
    peers:
        Whether other libraries are measured.
    json_:
        Write every figure as JSON.
    compare:
        Figures of an earlier run, as --json wrote them: tell what got slower, beyond the spread, and end with 1 if anything did.
    reuse:
        Measure nothing: show, draw and publish the figures in this file.
    plots:
        Draw pictures into this directory.
    docs:
        Markdown documents whose tables between `<!-- benchmark:… -->` comments are written anew.
    verbose:
        Let through what the measuring processes print.
    """
    from benchmarks import comparing
    from benchmarks import run as runner
    from benchmarks.show import show, show_comparison
    from byhand.checks import positive, size

    size("benchmarks", rounds=rounds)
    positive("benchmarks", seconds=seconds)
    for count in threads or ():
        size("benchmarks", threads=count)
    earlier = _read(compare) if compare else None
    if earlier and not reuse and earlier["machine"]["size"] != sizes:              # told before a quarter of an hour has gone
        raise ValueError(f"compare needs two runs of one size; got {earlier['machine']['size']} and {sizes}")
    if reuse:
        figures = _read(reuse)
        _write(figures, json_)
    else:
        chosen = runner.choose(sizes, [*names, *(only or ())])
        figures = {}
        try:
            effort = runner.Effort(rounds, seconds)
            for _ in track(
                runner.measure(
                    chosen, sizes, threads=threads, effort=effort, compiled=compiled, with_peers=peers, quiet=not verbose, figures=figures
                ),
                "measuring", total=sum(map(len, runner.plan(chosen, threads).values())), console=log, disable=not sys.stderr.isatty(),
            ):
                _write(figures, json_)             # a long run that is ended leaves what it has
        except KeyboardInterrupt:
            log.print(f"interrupted after {len(figures.get('rows', ()))} rows", style="yellow")
            if not figures.get("rows"):
                raise
    show(figures, out)
    if plots:
        from benchmarks.plots import draw

        for path in draw(figures, plots):
            out.print(f"wrote {path}", highlight=False)
    if docs:
        from benchmarks.publish import publish

        publish(figures, docs)
    slower = False
    if earlier:
        comparison = comparing.compare(earlier, figures)
        show_comparison(comparison, out)
        slower = bool(comparison.slower)
    return 1 if slower or any(row["errors"] for row in figures["rows"]) else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"benchmarks needs a file of figures as --json wrote it; {path}: {error}") from None
    if not isinstance(figures, dict) or figures.get("schema") != 2:
        schema = figures.get("schema") if isinstance(figures, dict) else None
        raise ValueError(f"benchmarks needs figures of schema 2; {path} has {schema!r}")
    return figures


def _write(figures: dict[str, Any], path: Path | None) -> None:
    if path and figures:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())      # who ends the run meanwhile keeps what was written last


def main() -> int:
    """Run and return the exit code."""
    try:
        with contextlib.suppress(BrokenPipeError):
            return int(app(exit_on_error=False, print_error=False, console=log) or 0)
        return 0
    except RuntimeError as error:
        log.print(f"{error}; --verbose shows what it said", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except (cyclopts.CycloptsError, ValueError, OSError) as error:
        log.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)


if __name__ == "__main__":
    sys.exit(main())
