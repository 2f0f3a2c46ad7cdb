"""The commands around real checkpoints: to convert them, and what a model makes of texts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts

from byhand import blas
from byhand.cli_adapters import is_large
from byhand.cli_common import OK, tune, with_options
from byhand.generate_options import GenerateOptions
from byhand.training_config import PRESETS


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


def generate(model: str | None = None, prompt: Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)] = "def ", *,
             count: Annotated[int | None, cyclopts.Parameter(name=["--count", "--max-tokens"])] = None, **options: Any) -> int:
    """Write on from a prompt. The text goes to stdout as it comes, without the prompt; figures go to stderr.

    What is not told is as the model's generation_config.json says; without one, the likeliest token is taken each time.

    Parameters
    ----------
    model
        A directory as Hugging Face's hub holds a model, the name of one on the hub, the directory of a `byhand train`, `byhand quantize` or
        `byhand merge`, a file of weights that an experiment left, or a preset with random weights. Not needed where the adapter is a run,
        which knows its base.
    prompt
        The text to go on from, or - for the standard input. An encoder-decoder such as T5 reads it, and answers.
    count
        Tokens to write at most. By default as the model's directory says, else 64.
    """
    told = {name: value for name, value in options.items() if value is not None}
    chosen = GenerateOptions(**told)
    here = model is not None and (model in PRESETS or Path(model).exists())
    if "OMP_NUM_THREADS" not in os.environ and here and not is_large(str(model)):
        blas.threads(1)                                   # sharing such small products gains little
    tune()
    from byhand.commands.generate import generate as work

    work(model, prompt, count=count, options=chosen)
    return OK


COMMANDS: dict[str, Callable[..., int]] = {"convert": convert, "embed": embed, "generate": with_options(generate, GenerateOptions)}
