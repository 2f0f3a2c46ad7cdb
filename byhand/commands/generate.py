"""`byhand generate`: a text goes on, in NumPy or PyTorch, as it is written or searched for."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from byhand.checks import demand, fail, size
from byhand.cli_common import log
from byhand.commands.generate_models import Opened, open_for
from byhand.commands.generate_task import Report, Task
from byhand.generate_options import GenerateOptions

_OUT = Console(highlight=False, soft_wrap=True)


def generate(where: str | None, prompt: str, *, count: int | None, options: GenerateOptions) -> None:
    """Write on from the prompt, on stdout as it comes, with the figures on stderr.

    Raises
    ------
    ValueError   if there is no such model or adapter, or a prompt or an option that will not do for it: before any weight is read
    """
    if count is not None:
        size("generate", count=count)
    demand("generate", sys.stdout is not None, "a standard output to write to", stdout=sys.stdout)
    options.check(count)                                          # what can be told to be wrong without the model
    prompt = _prompt(prompt)
    opened = open_for(where, options)
    task = Task(opened, prompt, count, options)
    for line in options.idle(task.config):
        log(line)
    if options.compare:
        _compare(opened, task)
        return
    model = opened.build(adapted=True)
    with _output() as write:
        report = task.run(model, None if options.json else write)
        if options.json:
            every_letter = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            write(json.dumps(_values(task, report), ensure_ascii=not every_letter, allow_nan=False))
    for line in [*_figures(task, report), *opened.notes()]:
        log(line)


class _output:
    """stdout, written to at once; a line that was begun is ended, whatever happens."""

    def __enter__(self) -> Callable[[str], None]:
        _show_every_letter()
        self._last = ""
        return self._write

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._last = text[-1:] or self._last

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None or (self._last and issubclass(kind, KeyboardInterrupt)):
            self._write("\n")


def _show_every_letter() -> None:
    """A terminal that lacks a letter shows its number."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _prompt(prompt: str) -> str:
    """The text to go on from: the argument, or with "-" the standard input but for its last line end."""
    if prompt == "-":
        demand("generate", sys.stdin is not None, "a standard input to read the prompt from", stdin=sys.stdin)
        try:
            prompt = sys.stdin.read().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"generate needs a prompt in UTF-8 in the standard input; {error}") from error
    demand("generate", bool(prompt), "a prompt of at least one byte", prompt=prompt)
    demand("generate", not re.fullmatch(r"--?[a-zA-Z][\w-]*", prompt), "options that there are, and a prompt that looks like none",
           prompt=prompt)
    try:
        return prompt.encode(errors="surrogateescape").decode()   # bytes of the command line, whatever letters the locale has
    except UnicodeError:
        fail("generate", "a prompt in UTF-8", repr(prompt))
    raise AssertionError("fail has refused it")


def _compare(opened: Opened, task: Task) -> None:
    """The base's text and, where there is an adapter, the one with it, each below its title."""
    titles = [(opened.title, False)] + ([(f"with {opened.adapter}", True)] if opened.adapter is not None else [])
    texts = {title: task.run(opened.build(adapted=adapted), None).texts[0].text for title, adapted in titles}
    before = "" if opened.encodes else task.text                  # an answer does not go on from what it answers
    _show_every_letter()
    for title, text in texts.items():
        _OUT.print(f"\n{title}:", style="bold", markup=False)
        _OUT.print("  | " + (before + text).replace("\n", "\n  | "), style="cyan", markup=False)
    for line in opened.notes():
        _OUT.print(f"\n{line}")


def _figures(task: Task, report: Report) -> list[str]:
    best = report.texts[0]
    if best.score is not None:
        shown = ", ".join(f"{text.score:.4f} ({len(text.tokens)} tokens, {text.reason})" for text in report.texts)
        return [f"{task.config.beams} beams, {len(best.tokens)} tokens in {report.seconds:.2f} s; scores {shown}"]
    rate = "" if report.rate is None else f", {report.rate:,.1f} tokens/s after the first"
    lines = [f"{len(best.tokens)} tokens behind {len(task.prompt)}, ended by {best.reason}; the first after {report.first:.3f} s{rate}"]
    if report.gap is not None and np.isfinite(report.gap) and task.opened.dtype == "float32":
        lines.append(f"the smallest lead of a token over the next best was {report.gap:.2g}: as long as another backend's float32 scores "
                     "differ by less than half of it, it writes the same")
    return lines


def _values(task: Task, report: Report) -> dict[str, Any]:
    def number(value: float | None) -> float | None:              # JSON has no infinity
        return None if value is None or not np.isfinite(value) else value

    return dict(
        model=task.opened.title, prompt=task.text, prompt_tokens=task.prompt,
        texts=[text._asdict() | {"score": number(text.score)} for text in report.texts], seconds=report.seconds,
        seconds_to_first=report.first, tokens_per_second=report.rate, gap=number(report.gap), dtype=task.opened.dtype,
        backend=task.opened.side.name,
    )
