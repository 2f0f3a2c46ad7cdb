"""Results in a document, written by the run that made them: between two markers that bear the experiment's name."""

import re
import shutil
from pathlib import Path

from byhand.run_directory import write_whole


def insert(document: str | Path, name: str, text: str, figure: Path | None = None) -> None:
    """Replace what stands between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->`` by `text` and the figure.

    The figure is copied to ``images/`` beside the document, as experiment-NAME.png.

    Raises
    ------
    ValueError   if the document cannot be read, or does not hold both markers once, in this order
    """
    document = Path(document)
    try:
        content = document.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"experiment needs a document it can read; {document}: {error.strerror}") from error
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if [content.count(start), content.count(end)] != [1, 1] or content.index(start) > content.index(end):
        raise ValueError(f"experiment needs the markers {start} and {end} in {document}, each once and in this order")
    parts = [text.strip()]
    if figure is not None:
        image = document.parent / "images" / f"experiment-{name}.png"
        image.parent.mkdir(exist_ok=True)
        shutil.copyfile(figure, image)
        parts.append(f"![{name}](images/{image.name})")
    between = "\n\n".join(["", *parts, ""])
    pattern = re.escape(start) + ".*?" + re.escape(end)
    write_whole(document, re.sub(pattern, lambda _: f"{start}{between}{end}", content, flags=re.DOTALL).encode())
