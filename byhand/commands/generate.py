"""`byhand generate`: a text goes on, in NumPy or PyTorch, as it is written or searched for."""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from byhand.checks import demand, fail, size
from byhand.cli_common import log
from byhand.commands.generate_models import Opened, open_for
from byhand.configs.generation import GenerationConfig
from byhand.generate_options import GenerateOptions
from byhand.model_source import as_bytes
from byhand.noise import Noise
from byhand.text_stream import ByteText, TextStream, TokenText, open_tokenizer

_OUT = Console(highlight=False, soft_wrap=True)


class Written(NamedTuple):
    """A text: its tokens, what ended it, and a beam's score."""

    text: str
    tokens: list[int]
    reason: str
    score: float | None = None


class Report(NamedTuple):
    """What was written, the best text first; seconds in all and to the first token; the smallest lead of a chosen token, if that was looked
    at."""

    texts: list[Written]
    seconds: float
    first: float
    gap: float | None

    @property
    def rate(self) -> float | None:
        """Tokens of the first text a second: those behind the first one, which waits for the prompt to be read."""
        rest, count = self.seconds - self.first, len(self.texts[0].tokens) - 1
        return count / rest if count > 0 and rest > 0 else None


def generate(where: str | None, prompt: str, *, count: int | None, options: GenerateOptions) -> None:
    """Write on from the prompt, on stdout as it comes, with the figures on stderr.

    Raises
    ------
    ValueError   if there is no such model or adapter, or a prompt or an option that will not do for it: before any weight is read
    """
    if count is not None:
        size("generate", count=count)
    options.over(GenerationConfig(), count)                       # what can be told to be wrong without the model
    prompt = _prompt(prompt)
    opened = open_for(where, options)
    task = Task(opened, prompt, count, options)
    if options.compare:
        _compare(opened, task)
        return
    model = opened.build(adapted=True)
    with _output() as write:
        report = task.run(model, None if options.json else write)
        if options.json:
            write(json.dumps(_values(task, report), ensure_ascii=False))
    for line in [*_figures(task, report), *opened.notes()]:
        log(line)


class Task:
    """A prompt as tokens, and how it is to go on: everything is checked here that can be without the weights."""

    def __init__(self, opened: Opened, prompt: str, count: int | None, options: GenerateOptions):
        config = opened.config
        self.opened, self.options = opened, options
        self.bytes = opened.tokenize is as_bytes
        self._tokenizer = None if self.bytes or opened.path is None else open_tokenizer(opened.path)
        self.text, self.prompt = prompt, self._ids(prompt, special=True)
        vocabulary = config.vocabulary
        demand("generate", bool(self.prompt), "a prompt of at least one token", prompt=prompt)
        demand("generate", max(self.prompt) < vocabulary, f"a tokenizer of the model's, which knows {vocabulary} tokens",
               token=max(self.prompt))
        most = None if opened.encodes else getattr(config, "max_length", None)
        if most is not None:
            demand("generate", len(self.prompt) <= most, f"a prompt of at most {most} tokens, the model's context", tokens=len(self.prompt))
        if options.cache == "rolling" and hasattr(config, "n_kv_heads"):
            demand("generate", config.window is not None, "a model with a window for --cache rolling", window=None)
        found = options.over(opened.defaults(1 if opened.encodes else len(self.prompt), count), count)
        words = tuple(dict.fromkeys(tuple(self._ids(start + text)) for text in options.ban or () for start in ("", " ")))
        targets = getattr(config, "target_vocabulary", vocabulary)
        beyond = tuple(token for token in range(256, targets) if token not in found.eos) if self.bytes else ()
        limit = {} if most is None or found.beams == 1 else {"max_new_tokens": min(found.max_new_tokens, most - len(self.prompt) + 1)}
        self.config = dataclasses.replace(found, banned=found.banned + words, suppressed=found.suppressed + beyond, **limit)
        demand("generate", found.beams <= targets, f"at most as many beams as there are tokens, {targets}", beams=found.beams)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return as_bytes(text)[0] if self._tokenizer is None else self._tokenizer.encode(text, add_special_tokens=special).ids

    def stream(self) -> TextStream:
        """Where tokens become text."""
        if self._tokenizer is None:
            return TextStream(ByteText(), stop=self.config.stop)
        before = [] if self.opened.encodes else self.prompt
        return TextStream(TokenText(self._tokenizer.decode, before=before, token=self._tokenizer.id_to_token), stop=self.config.stop)

    def run(self, model: Any, write: Callable[[str], None] | None) -> Report:
        """Write on, handing text to `write` as it becomes final."""
        side, began = self.opened.side, time.perf_counter()
        ids = side.array([self.prompt])
        if self.opened.encodes:
            cache, ids = model.new_cache(ids, kind=self.options.cache), side.array([[self.opened.config.start]])
        else:
            cache = model.new_cache(kind=self.options.cache)
        if self.config.beams > 1:
            return self._search(model, ids, cache, write, began)
        stream, tokens, first = self.stream(), [], 0.0

        def on_tokens(new: Any, _: Any) -> bool:
            nonlocal first
            first = first or time.perf_counter() - began
            tokens.append(int(new[0]))
            if tokens[-1] not in self.config.eos:
                _say(write, stream.push(tokens[-1]))
            return stream.stopped is not None

        try:
            found = side.generate(model, ids, config=self.config, cache=cache, noise=Noise(self.options.seed), on_tokens=on_tokens)
        except KeyboardInterrupt as error:
            error.add_note(f"{len(tokens)} tokens had come in {time.perf_counter() - began:.2f} s.")
            raise
        _say(write, stream.finish())
        seconds = time.perf_counter() - began
        return Report([Written(stream.text, tokens, found.reasons[0])], seconds, first, float(found.gap))

    def _search(self, model: Any, ids: Any, cache: Any, write: Callable[[str], None] | None, began: float) -> Report:
        found = self.opened.side.beam_search(model, ids, config=self.config, cache=cache)
        seconds, texts = time.perf_counter() - began, []
        for tokens, n, score in zip(found.sequences[0].tolist(), found.lengths[0].tolist(), found.scores[0].tolist(), strict=True):
            stream = self.stream()
            ended = n and tokens[n - 1] in self.config.eos
            text = "".join([*map(stream.push, tokens[: n - 1 if ended else n]), stream.finish()])
            texts.append(Written(text, tokens[:n], "eos" if ended else "length", score))
        texts = [text for text in texts if text.tokens] or texts[:1]
        _say(write, "\n".join(text.text for text in texts))
        return Report(texts, seconds, seconds, None)


class _output:
    """stdout, written to at once; a line that was begun is ended, whatever happens."""

    def __enter__(self) -> Callable[[str], None]:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")     # a terminal that lacks a letter shows its number
        self._last = ""
        return self._write

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._last = text[-1:] or self._last

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None or (self._last and issubclass(kind, KeyboardInterrupt)):
            self._write("\n")


def _say(write: Callable[[str], None] | None, text: str) -> None:
    if write is not None and text:
        write(text)


def _prompt(prompt: str) -> str:
    """The text to go on from: the argument, or with "-" the standard input but for its last line end."""
    if prompt == "-":
        try:
            prompt = sys.stdin.read().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"generate needs a prompt in UTF-8 in the standard input; {error}") from error
    demand("generate", bool(prompt), "a prompt of at least one byte", prompt=prompt)
    demand("generate", not re.fullmatch(r"--?[a-zA-Z][\w-]*", prompt), "options that there are, and a prompt that looks like none",
           prompt=prompt)
    try:
        prompt.encode()
    except UnicodeEncodeError:                                    # bytes of the command line that are no letters
        fail("generate", "a prompt in UTF-8", repr(prompt))
    return prompt


def _compare(opened: Opened, task: Task) -> None:
    """The base's text and, where there is an adapter, the one with it, each below its title."""
    titles = [(opened.title, False)] + ([(f"with {opened.adapter}", True)] if opened.adapter is not None else [])
    texts = {title: task.run(opened.build(adapted=adapted), None).texts[0].text for title, adapted in titles}
    for title, text in texts.items():
        _OUT.print(f"\n{title}:", style="bold", markup=False)
        _OUT.print("  | " + (task.text + text).replace("\n", "\n  | "), style="cyan", markup=False)
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
    gap = None if report.gap is None or not np.isfinite(report.gap) else report.gap
    return dict(
        model=task.opened.title, prompt=task.text, prompt_tokens=task.prompt, texts=[text._asdict() for text in report.texts],
        seconds=report.seconds, seconds_to_first=report.first, tokens_per_second=report.rate, gap=gap, dtype=task.opened.dtype,
        backend=task.opened.side.name,
    )
