"""Results in a document, written by the run that made them: between two markers that bear the experiment's name."""

import shutil
from pathlib import Path

from byhand.run_directory import write_whole


def check(document: str | Path, name: str) -> str:
    """What the document holds; a ValueError if it cannot be read, or does not hold both markers once, in this order."""
    try:
        content = Path(document).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"experiment needs a document it can read; {document}: {error.strerror}") from error
    start, end = _markers(name)
    if [content.count(start), content.count(end)] != [1, 1] or content.index(start) > content.index(end):
        raise ValueError(f"experiment needs the markers {start} and {end} in {document}, each once and in this order")
    return content


def insert(document: str | Path, name: str, text: str, figure: Path | None = None) -> None:
    """Replace what stands between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->`` by `text` and the figure.

    The figure is copied to ``images/`` beside the document, as experiment-NAME.png.

    Raises
    ------
    ValueError   as `check` does
    """
    document, content = Path(document), check(document, name)
    parts = [text.strip()]
    if figure is not None:
        image = document.parent / "images" / f"experiment-{name}.png"
        image.parent.mkdir(exist_ok=True)
        shutil.copyfile(figure, image)
        parts.append(f"![{name}](images/{image.name})")
    start, end = _markers(name)
    before, after = content[:content.index(start)], content[content.index(end):]
    write_whole(document, "\n\n".join([before + start, *parts, after]).encode())


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"
