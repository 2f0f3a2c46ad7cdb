"""`byhand embed`: texts as vectors, and which of them are close to a query."""

import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from byhand.checks import demand, fail, size
from byhand.cli_common import log
from byhand.hugging_face.hub import from_hub, is_hub_name
from byhand.run_directory import write_whole
from byhand.sentence_embedding import SentenceEncoder

_SHOWN = 10                                             # texts of which the first numbers are printed


def embed(model: str, texts: Sequence[str], *, file: Path | None, query: str | None, top: int | None, out: Path | None, batch: int,
          **options: Any) -> None:
    """Print what the vectors of the texts are, or the texts closest to the query; write the vectors where `out` says.

    Raises
    ------
    ValueError   if there is no text, the model is no sentence encoder, or `out` is no place for vectors
    """
    size("embed", batch=batch)
    demand("embed", query is None or bool(query.strip()), "a query with words in it", query=query)
    demand("embed", top is None or query is not None, "--query, for the closest to it to be told, with --top", query=query)
    top = 5 if top is None else top
    size("embed", top=top)
    if out is not None:
        demand("embed", out.suffix in (".npy", ".json"), "--out to end with .npy or .json", out=str(out))
        demand("embed", out.parent.is_dir(), "--out in a directory that exists", out=str(out))
        demand("embed", not out.is_dir() and os.access(out.parent, os.W_OK), "--out as a file that can be written", out=str(out))
    texts = _texts(texts, file)
    encoder = SentenceEncoder(from_hub("embed", model) if is_hub_name(model) else model, **options)
    if not encoder.stated:
        log(f"{model} has no modules.json: it is not said to be a sentence encoder, and {_how(encoder)} is an assumption")

    began = time.perf_counter()
    embedded = encoder.embed(texts, batch=batch, prompt=encoder.prompts["" if query is None else "document"])
    seconds = time.perf_counter() - began
    if embedded.cut:
        which = ", ".join(str(i + 1) for i in embedded.cut[:10]) + (" …" if len(embedded.cut) > 10 else "")
        several = f"{len(embedded.cut)} texts are" if len(embedded.cut) > 1 else "1 text is"
        log(f"{several} longer than {encoder.max_length} tokens, and cut off there: number {which}")
    log(f"{embedded.tokens:,} tokens in {seconds:.2f} s, {len(texts) / seconds:,.1f} texts/s")
    if out is not None:
        write_whole(out, _content(out, texts, embedded.vectors))

    tell = Console(highlight=False, markup=False, soft_wrap=True)
    count, width = embedded.vectors.shape
    kept = "" if out is None else f" -> {out}"
    tell.print(f"{count} {'text' if count == 1 else 'texts'} × {width} numbers, {embedded.vectors.dtype}, {_how(encoder)}{kept}")
    if query is not None:
        asked = encoder.embed([query], prompt=encoder.prompts["query"]).vectors[0]
        for i, cosine in closest(asked, embedded.vectors)[:top]:
            tell.print(f"{cosine:8.4f}  {i + 1:>{len(str(count))}}  {texts[i]}")
    elif out is None:
        for vector, text in zip(embedded.vectors[:_SHOWN], texts, strict=False):
            tell.print(" ".join(f"{number:8.4f}" for number in vector[:4]) + f" …  {textwrap.shorten(text, 80, placeholder=' …')}")


def closest(query: NDArray, vectors: NDArray) -> list[tuple[int, float]]:
    """(index, cosine) of every vector, the closest to the query first; of two that are equally close, the one of the lower index.

    query (D,), vectors (N, D).

    Examples
    --------
    >>> closest(np.array([1.0, 0.0]), np.array([[0.0, 2.0], [3.0, 4.0], [2.0, 0.0]]))
    [(2, 1.0), (1, 0.6), (0, 0.0)]
    """
    from numpy_impl.ops.l2_normalize import l2_normalize

    # (N,), each row by itself: a matrix product rounds equal rows differently, and equal texts would change places
    cosines = (l2_normalize(vectors)[0] * l2_normalize(query)[0]).sum(-1)
    return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")]


def _how(encoder: SentenceEncoder) -> str:
    return f"{' and '.join(encoder.poolings)} pooling{', length 1' if encoder.normalize else ''}"


def _texts(texts: Sequence[str], file: Path | None) -> list[str]:
    """What is to be embedded: the words of the command line, or the lines of the file, or of the standard input."""
    if texts:
        demand("embed", file is None, "texts or --file, not both", file=str(file))
        return list(texts)
    if file is None and sys.stdin.isatty():
        fail("embed", "texts: as arguments, with --file, or line by line on the standard input", "none")
    try:
        content = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"embed needs a file it can read; {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"embed needs text in UTF-8 in {file or 'the standard input'}; {error}") from error
    demand("embed", bool(content.strip()), f"texts in {file or 'the standard input'}", length=len(content))
    return content.removesuffix("\n").split("\n")


def _content(out: Path, texts: Sequence[str], vectors: NDArray) -> bytes:
    if out.suffix == ".json":
        entries = [{"text": text, "vector": vector.tolist()} for text, vector in zip(texts, vectors, strict=True)]
        return (json.dumps(entries, ensure_ascii=False) + "\n").encode()
    whole = io.BytesIO()
    np.save(whole, vectors)
    return whole.getvalue()
