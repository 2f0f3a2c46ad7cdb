"""Text to train on, as bytes: texts that every machine with Python has, by name, or any file or directory."""

import dataclasses
import hashlib
import os
import random
import sysconfig
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from byhand.tasks import list_operations

Batch = tuple[NDArray, NDArray]  # ids and targets, each (B, T)

NAMES = ("library", "topics", "list-operations")

_LIST_OPERATIONS = 22_500  # lines
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test"})


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text as bytes, one token a byte.

    name : where it came from
    tokens : (N,) uint8
    files : how many files were joined
    digest : SHA-256 of the bytes; two runs with equal digests saw the same text
    """

    name: str
    tokens: NDArray
    files: int
    digest: str


def load(path: str | os.PathLike | None = None) -> Corpus:
    """The text of this name, of a file, or of every file below a directory (hidden ones left out).

    Names, of texts that need no file: ``"library"``, the source of Python's standard library, which is also what is loaded without a
    path; ``"topics"``, English: the help topics of Python's own documentation; ``"list-operations"``, a megabyte of lines such as
    ``Max(First(2, 8), 5) = 5``. A file or directory that is called so is written with its directory: ``"./topics"``.

    Files are joined in the order of their paths, each ending with a newline, so that the same files always make the same corpus.

    Raises
    ------
    ValueError   if the path does not exist or cannot be read, or holds no text

    Examples
    --------
    >>> load("list-operations").tokens[:14].tobytes()
    b'Max(9, 5) = 9\\n'
    """
    if path is None or path == "library":
        root = Path(sysconfig.get_path("stdlib"))
        return _join("the standard library of Python " + sysconfig.get_python_version(), root, _walk(root, _NOT_LIBRARY, suffix=".py"))
    if path == "topics":
        return _topics()
    if path == "list-operations":
        return _corpus("nested list operations", [list_operations.text(_LIST_OPERATIONS, seed=0).encode()])
    root = Path(path)
    known = os.fspath(path) != "" and root.exists()
    demand("corpus.load", known, f"a file or a directory that exists, or one of {', '.join(NAMES)}", path=str(path))
    return _join(str(root), root, [root] if root.is_file() else _walk(root))


def split(tokens: NDArray, *, validation: float = 0.05) -> tuple[NDArray, NDArray]:
    """(training, validation): the last `validation` of the text, 0 to 1, is kept apart."""
    in_range("corpus.split", 0, 1, validation=validation)
    edge = len(tokens) - round(len(tokens) * validation)
    return tokens[:edge], tokens[edge:]


def draw(tokens: NDArray, *, batch: int, length: int, seed: int, step: int) -> Batch:
    """(ids, targets), each (batch, length) int64: windows of the text at random places, and the same windows one token later.

    The places follow from (seed, step) alone, on every machine: step 40 can be drawn without the 39 before it.

    Raises
    ------
    ValueError   if the text is shorter than one window and its last target
    """
    _fits("corpus.draw", tokens, batch, length)
    uniform = random.Random(f"{seed}, {step}").random  # of Python's generators the one whose sequence is promised never to change
    return _windows(tokens, [int(uniform() * (len(tokens) - length)) for _ in range(batch)], length)


def spread(tokens: NDArray, *, batch: int, length: int, count: int) -> list[Batch]:
    """`count` batches of windows spread evenly over the text: what validation looks at, the same in every run."""
    _fits("corpus.spread", tokens, batch, length)
    starts = np.linspace(0, len(tokens) - length - 1, batch * count).astype(int).tolist()
    return [_windows(tokens, starts[i * batch : (i + 1) * batch], length) for i in range(count)]


def _fits(function: str, tokens: NDArray, batch: int, length: int) -> None:
    size(function, batch=batch, length=length)
    demand(function, len(tokens) > length, f"a text of more than {length} bytes, one window and its last target", tokens=tokens)


def _windows(tokens: NDArray, starts: list[int], length: int) -> Batch:
    windows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)
    return windows[:, :-1].copy(), windows[:, 1:].copy()


def _walk(root: Path, without: Collection[str] = (), suffix: str = "") -> Iterator[Path]:
    found = []
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        folders[:] = [name for name in folders if name not in without and name != "__pycache__" and not name.startswith(".")]
        found += [Path(folder, name) for name in files if name.endswith(suffix) and not name.startswith(".")]
    yield from sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(root).parts)


def _unreadable(error: OSError) -> None:
    raise ValueError(f"corpus.load needs directories that can be read; {error.filename}: {error.strerror}") from error


def _join(name: str, root: Path, paths: "Iterator[Path] | list[Path]") -> Corpus:
    texts = []
    for path in paths:
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise ValueError(f"corpus.load needs files that can be read; {path}: {error.strerror}") from error
    corpus = _corpus(name, texts)
    if not len(corpus.tokens):
        raise ValueError(f"corpus.load needs text; {root} holds {'nothing but empty files' if texts else 'no files of text'}")
    return corpus


def _corpus(name: str, texts: list[bytes]) -> Corpus:
    text = b"".join(text if text.endswith(b"\n") else text + b"\n" for text in texts if text)
    return Corpus(name, np.frombuffer(text, dtype=np.uint8), len(texts), hashlib.sha256(text).hexdigest())


def _topics() -> Corpus:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError("corpus.load needs Python's help topics (the module pydoc_data), which this Python comes without") from error
    return _corpus("the help topics of Python " + sysconfig.get_python_version(), [topics[name].encode() for name in sorted(topics)])
