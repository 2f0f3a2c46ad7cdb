"""One text that `byhand generate` writes: a prompt as tokens, how it is to go on, and what came of it."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from byhand.checks import demand
from byhand.commands.generate_models import Opened
from byhand.configs.generation import GenerationConfig
from byhand.generate_options import GenerateOptions
from byhand.model_source import as_bytes
from byhand.noise import Noise
from byhand.text_stream import ByteText, TextStream, TokenText, open_tokenizer


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


class Task:
    """A prompt as tokens, and how it is to go on: everything is checked here that can be without the weights."""

    def __init__(self, opened: Opened, prompt: str, count: int | None, options: GenerateOptions):
        self.opened, self.options, self.text = opened, options, prompt
        self._tokenizer = None if opened.tokenize is as_bytes or opened.path is None else open_tokenizer(opened.path)
        self.prompt = self._ids(prompt, special=True)
        vocabulary, room = opened.config.vocabulary, self._room()
        self._start = opened.start() if opened.encodes else 0       # which no other model looks at
        demand("generate", max(self.prompt) < vocabulary, f"the model's tokenizer, of at most {vocabulary} tokens", token=max(self.prompt))
        found = options.over(opened.defaults(1 if opened.encodes else len(self.prompt), count), count)
        self._cut = found.beams > 1 and room is not None and room < found.max_new_tokens
        self.config = self._fitted(found, getattr(opened.config, "target_vocabulary", vocabulary), room)

    def _room(self) -> int | None:
        """How many tokens the model's context has room for behind the prompt, if it has an end."""
        config, tokens = self.opened.config, len(self.prompt)
        demand("generate", tokens > 0, "a prompt of at least one token", prompt=self.text)
        if self.options.cache == "rolling":
            window = getattr(config, "window", None)
            demand("generate", window is not None, "a model with a window for --cache rolling", window=window)
        most = None if self.opened.encodes else getattr(config, "max_length", None)
        if most is None:
            return None
        demand("generate", tokens <= most, f"a prompt of at most {most} tokens, the model's context", tokens=tokens)
        return most - tokens + 1                                  # the last one need not be read

    def _fitted(self, config: GenerationConfig, vocabulary: int, room: int | None) -> GenerationConfig:
        """The config for a model of so many tokens: with what --ban bans; of byte models, nothing but bytes."""
        demand("generate", config.beams <= vocabulary, f"at most as many beams as there are tokens, {vocabulary}", beams=config.beams)
        told = dict(suppressed=config.suppressed, banned=[token for word in config.banned for token in word],
                    forced_first=[config.forced_first or 0], forced_last=[config.forced_last or 0])
        for name, tokens in told.items():
            largest = max(tokens, default=0)
            demand("generate", largest < vocabulary, f"{name} below the vocabulary of {vocabulary}", token=largest)
        words = dict.fromkeys(tuple(self._ids(start + text)) for text in self.options.ban or () for start in ("", " "))
        beyond = [token for token in range(256, vocabulary) if token not in config.eos] if self._tokenizer is None else []
        return dataclasses.replace(
            config, banned=(*config.banned, *words), suppressed=(*config.suppressed, *beyond),
            eos=tuple(token for token in config.eos if token < vocabulary),         # files of cut-down models name ends that they lack
            max_new_tokens=config.max_new_tokens if room is None or config.beams == 1 else min(config.max_new_tokens, room),
        )

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
            cache, ids = model.new_cache(ids, kind=self.options.cache), side.array([[self._start]])
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
            cut = self._cut and n == self.config.max_new_tokens
            texts.append(Written(text, tokens[:n], "eos" if ended else "context" if cut else "length", score))
        texts = [text for text in texts if text.tokens] or texts[:1]
        _say(write, "\n".join(text.text for text in texts))
        return Report(texts, seconds, seconds, None)


def _say(write: Callable[[str], None] | None, text: str) -> None:
    if write is not None and text:
        write(text)
