"""Tokens that come one by one as text that is final: no half of a letter, and nothing that a string to stop at may begin with.

A token is not a piece of text. A letter may be several tokens, and what a token stands for may depend on those around it. So the text that
has been given out is to be the beginning of the text of all tokens, whatever they will be, and what is not yet sure of that is held back.
"""

import codecs
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from byhand.checks import demand, fail
from byhand.hugging_face.files import file_in

_BYTE = re.compile("<0x[0-9A-F]{2}>")                   # a token that stands for a byte, where the vocabulary lacks the letter
_UNFINISHED = "\ufffd"                                  # what bytes become that are no letter, or not yet


class Detokenizer(Protocol):
    """Turns tokens into text as they come."""

    def push(self, token: int) -> str:
        """The text that has become final with this token."""

    def finish(self) -> str:
        """The text that was held back; no token follows."""


class ByteText:
    """Tokens that are the bytes of UTF-8; others, from 256 on, stand for nothing.

    Examples
    --------
    >>> text = ByteText()
    >>> [text.push(byte) for byte in "aü".encode()], text.finish()
    (['a', '', 'ü'], '')
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The letters that this byte completes."""
        return self._decoder.decode(bytes([token])) if token < 256 else ""

    def finish(self) -> str:
        """A � where a letter had begun."""
        return self._decoder.decode(b"", final=True)


class TokenText:
    """Tokens of the tokenizers library, which decodes a window of them that grows until its text is final.

    Where a text begins, a space is lost, so the window keeps the tokens before the new ones, which give it a beginning. At its end there
    may be the first bytes of a letter, shown as one �; and of tokens that stand for a byte each, a run is read as a whole.

    Parameters
    ----------
    decode   ids -> their text
    before   the ids of the text that the new ones continue
    token    id -> how the tokenizer writes it, or None
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, before: Sequence[int] = (),
                 token: Callable[[int], str | None] = lambda _: None):
        self._decode, self._token = decode, token
        self._window, self._said = list(before), len(decode(before))
        self._run = False                               # whether the last token with a text stands for a byte
        self._sure = len(self._window)                  # up to here the window's text had been given out, and nothing held back

    def push(self, token: int) -> str:
        """The text that this token completes."""
        self._window.append(token)
        if _BYTE.fullmatch(self._token(token) or ""):
            self._run = True
            return ""
        text = self._decode(self._window)
        if self._run and text == self._decode(self._window[:-1]):
            return ""                                   # a token without text, an end of text say, which the decoder skips, ends no run
        self._run = False
        if text.endswith(_UNFINISHED):
            return self._give(text[:-1])
        new = self._give(text)
        if new:
            self._window = self._window[self._sure :]
            self._sure, self._said = len(self._window), len(self._decode(self._window))
        return new

    def finish(self) -> str:
        """What bytes were left over."""
        return self._give(self._decode(self._window))

    def _give(self, text: str) -> str:
        new = text[self._said :]
        self._said += len(new)
        return new


class TextStream:
    """The text of tokens as it becomes final, up to the first of several strings, which is not part of it.

    Of two such strings the one that is complete first counts, and of those that are complete at once the longest.

    Parameters
    ----------
    detokenizer
    stop   strings that the text ends before

    Attributes
    ----------
    text      all that has been given out
    stopped   the string that ended it, or None

    Examples
    --------
    >>> stream = TextStream(ByteText(), stop=("\\n\\n",))
    >>> [stream.push(byte) for byte in b"a\\nb\\n\\nc"], stream.stopped
    (['a', '', '\\nb', '', '', ''], '\\n\\n')
    """

    def __init__(self, detokenizer: Detokenizer, *, stop: Sequence[str] = ()):
        demand("TextStream", all(isinstance(text, str) and text for text in stop), "stop as strings, none of them empty", stop=stop)
        self._detokenizer, self._stop = detokenizer, tuple(stop)
        self._held, self.text = "", ""
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        """The text that has become final with this token."""
        return "" if self.stopped else self._take(self._detokenizer.push(token))

    def finish(self) -> str:
        """The text that was held back; no token follows."""
        if self.stopped:
            return ""
        new, rest = self._take(self._detokenizer.finish()), self._held
        self._held, self.text = "", self.text + rest
        return new + rest

    def _take(self, text: str) -> str:
        self._held += text
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            new, self._held = self._held[:at], ""
        else:
            sure = len(self._held) - max((_begun(self._held, stop) for stop in self._stop), default=0)
            new, self._held = self._held[:sure], self._held[sure:]
        self.text += new
        return new


def open_tokenizer(path: Path) -> Any:
    """The tokenizers library's tokenizer of a directory, which neither cuts texts off nor pads them.

    Raises
    ------
    ValueError   if the library is not installed, there is no whole tokenizer.json, or it lies elsewhere
    """
    who, file = "open_tokenizer", path / "tokenizer.json"
    if not file.is_file():
        fail(who, f"a tokenizer.json in {path}", "none")
    file_in(who, path, file.name)
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(f"{who} needs the tokenizers library: pip install tokenizers") from error
    try:
        found = Tokenizer.from_file(str(file))
    except BaseException as error:                      # on some malformed files the library panics with what is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{who} needs a whole tokenizer.json; {file}: {error}") from error
    found.no_truncation()
    found.no_padding()
    return found


def _begun(text: str, stop: str) -> int:
    """How many letters at the end of the text are the beginning of `stop`: the most."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
