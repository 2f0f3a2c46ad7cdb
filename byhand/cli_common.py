"""What all files of the command line share: exit codes, the threads and kernels of a command, options from a dataclass, words on stderr."""

import dataclasses
import inspect
import json
import os
from collections.abc import Callable
from typing import Annotated, Any

import cyclopts
from rich.console import Console

from byhand import blas
from byhand.run_config import RunConfig

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def tune() -> None:
    """Choose NumPy's kernels, before it is imported, and say so."""
    note = blas.tune()
    if note:
        log(note)


def threads(config: RunConfig, *, large: bool) -> str | None:
    """Threads and kernels are chosen before anything imports NumPy; the line that says so, if there is one."""
    if config.threads:
        blas.threads(config.threads)
    elif not large and "OMP_NUM_THREADS" not in os.environ:
        blas.threads(1)  # sharing such small products gains little, and loses all of it where the other cores are busy
    return blas.tune()


def with_options(function: Callable[..., int], options: type) -> Callable[..., int]:
    """`function` as cyclopts should see it: `**options` spelled out, one optional keyword for every field of the dataclass."""
    annotate: Any = Annotated  # made at run time, which type checkers do not follow
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    for field in dataclasses.fields(options):
        default = "" if field.default is None else f" Default: {json.dumps(field.default)}."
        kind: Any = field.type
        hint = annotate[kind | None, cyclopts.Parameter(help=field.metadata["help"] + default, show_default=False, consume_multiple=True)]
        parameters.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))

    def command(*args: Any, **given: Any) -> int:
        return function(*args, **given)

    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def log(text: str) -> None:
    """A line on stderr."""
    Console(stderr=True).print(f"byhand: {text}", soft_wrap=True, markup=False, highlight=False)
