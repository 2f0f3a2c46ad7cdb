"""The figures of `python -m benchmarks` in documents: tables and pictures between comments that name them.

    <!-- benchmark:workloads:start -->
    whatever stands here is replaced
    <!-- benchmark:workloads:end -->
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plots import PREFIX, draw
from benchmarks.reading import Figures, settled
from benchmarks.tables import BLOCKS, caption
from byhand.run_directory import write_whole

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

_MARK = re.compile(r"<!-- benchmark:([^:>\s]*):(start|end) -->")


def publish(figures: Figures, documents: Sequence[Path], images: Path = IMAGES) -> None:
    """Write the figures into every document that has a place for them, and their drawings into a directory that the documents link to.

    The names are machine, goals, summary, workloads, components, scaling, peers, memory, crossover and bounds. What stands outside the
    comments stays as it is, byte for byte. Nothing is written if a document is wrong.

    Raises
    ------
    ValueError   if a document cannot be read or has a name that is not known, a name twice, or one mark without the other;
                 if matplotlib is not installed
    """
    figures = settled(figures)
    contents = {Path(document): _read(Path(document)) for document in documents}
    places = {document: _places(document, content) for document, content in contents.items()}
    drawn = draw(figures, images) if any(places.values()) else []
    for document, content in contents.items():
        links = {path.stem.removeprefix(PREFIX): _relative(path, document) for path in drawn}
        names = [name for name, *_ in places[document]]
        parts, at = [], 0
        for name, start, end in places[document]:
            said = BLOCKS[name](figures, links)
            if "machine" not in names and name == names[0]:
                said = f"{caption(figures)}\n\n{said}"
            parts += [content[at:start], f"\n\n{said.strip()}\n\n"]
            at = end
        if parts:
            write_whole(document, "".join([*parts, content[at:]]).encode())


def _read(document: Path) -> str:
    try:
        return document.read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(f"publish needs a document it can read; {document}: {error.strerror}") from error


def _places(document: Path, content: str) -> list[tuple[str, int, int]]:
    """Name, and where its text starts and ends, of every pair of marks."""
    found: list[tuple[str, int, int]] = []
    marks = list(_MARK.finditer(content))
    for i, mark in enumerate(marks):
        name, kind = mark.groups()
        if name not in BLOCKS:
            raise ValueError(f"publish knows no figures of the name {name!r} ({', '.join(BLOCKS)}), which {document} asks for")
        if kind == "end":
            if i == 0 or marks[i - 1].groups() != (name, "start"):
                raise ValueError(f"publish needs <!-- benchmark:{name}:start --> before its end in {document}")
            found.append((name, marks[i - 1].end(), mark.start()))
        elif i + 1 == len(marks) or marks[i + 1].groups() != (name, "end"):
            raise ValueError(f"publish needs <!-- benchmark:{name}:end --> after its start in {document}")
        elif any(name == other for other, *_ in found):
            raise ValueError(f"publish needs each name once in a document; {name!r} stands twice in {document}")
    return found


def _relative(path: Path, document: Path) -> str:
    return Path(os.path.relpath(path.resolve(), document.resolve().parent)).as_posix()
