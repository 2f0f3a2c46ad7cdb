"""The commands around real checkpoints: to convert them, and what a model makes of texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from byhand.cli_common import OK, tune


def embed(
    model: str,
    *texts: str,
    file: Path | None = None,
    query: str | None = None,
    top: int | None = None,
    out: Path | None = None,
    pooling: Literal["auto", "mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean"] = "auto",
    normalize: bool | None = None,
    batch: int = 32,
    backend: Literal["numpy", "torch"] = "numpy",
    dtype: Literal["float32", "float64"] = "float32",
    device: Literal["cpu", "cuda"] = "cpu",
) -> int:
    """Turn texts into vectors with a sentence encoder, and rank them by how close they are to a query.

    Parameters
    ----------
    model
        A directory as Hugging Face's hub holds a BERT, with what sentence-transformers adds to it where there is any; or the name of one
        on the hub.
    texts
        The texts, one vector each. Without them and without --file, every line of the standard input is one.
    file
        A file, every line of which is a text.
    query
        A text that the others are ranked against, by the cosine of the angle between the vectors.
    top
        How many of the ranked texts are told. Default: 5.
    out
        Where the vectors go: .npy, an array (texts, width), or .json, a list of texts and vectors.
    pooling
        How the vectors of a text's tokens become one. auto: as the directory says; where it says nothing, their mean.
    normalize
        Scale every vector to length 1. By default, as the directory says.
    batch
        Texts at a time; those of like length go together.
    backend
        By hand in NumPy, or PyTorch.
    dtype
        Of all computation.
    device
        Of PyTorch.
    """
    tune()
    from byhand.commands.embed import embed as work

    work(model, texts, file=file, query=query, top=top, out=out, pooling=pooling, normalize=normalize, batch=batch, backend=backend,
         dtype=dtype, device=device)
    return OK


def convert(source: str, out: str, *, dtype: Literal["float32", "float16", "bfloat16"] | None = None, max_shard: str | None = None,
            seed: int = 0) -> int:
    """Write a model as Hugging Face's hub holds one, so that transformers loads it.

    Parameters
    ----------
    source
        The directory of a `byhand train` or `byhand quantize`, a directory as Hugging Face's hub holds a model, the name of one on the
        hub, or a preset with random weights.
    out
        The new directory: whole, or not there.
    dtype
        Of the files. By default that of the source, where it is one of these, else float32.
    max_shard
        The most that one file of weights holds, 2GB say; by default there is one file.
    seed
        Of random weights.
    """
    tune()
    from byhand.commands.convert import convert as work

    work(source, out=out, dtype=dtype, max_shard=max_shard, seed=seed)
    return OK


COMMANDS: dict[str, Callable[..., int]] = {"convert": convert, "embed": embed}
