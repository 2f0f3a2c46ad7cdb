"""The commands `byhand profile …`."""

import os
from pathlib import Path
from typing import Annotated, Any

import cyclopts

from byhand import blas
from byhand.cli_adapters import is_large
from byhand.cli_common import OK, tune, with_options
from byhand.profiling.options import GenerationOptions, StepOptions, generation_options
from byhand.training_config import PRESETS

profiles = cyclopts.App(name="profile", help="Where time and memory go, by component.")


def _step(model: Annotated[str, cyclopts.Parameter(name=["--model", "--preset"])] = "gpt2-1m", **options: Any) -> int:
    """Profile a step of training: forward, backward, clipping and AdamW, on tokens drawn at random.

    Parameters
    ----------
    model
        A preset with random weights (gpt2-nano, llama-1m, mixtral-nano …), the directory of a `byhand train`, or a directory as Hugging
        Face's hub holds a model.
    """
    chosen = StepOptions(**{name: value for name, value in options.items() if value is not None})
    _prepare(model, chosen.threads)
    from byhand.commands.profile import profile_step as work

    work(model, chosen)
    return OK


def _generate(model: str | None = None, prompt: Annotated[str, cyclopts.Parameter(allow_leading_hyphen=True)] = "def ", *,
              count: Annotated[int | None, cyclopts.Parameter(name=["--count", "--max-new-tokens", "--max-tokens"])] = None,
              **options: Any) -> int:
    """Profile the writing of a text, as `byhand generate` writes it.

    Parameters
    ----------
    model
        As for `byhand generate`.
    prompt
        The text to go on from, or - for the standard input.
    count
        Tokens to write at most. By default as the model's directory says, else 64.
    """
    writing, how = generation_options(options)
    _prepare(model, how.threads)
    from byhand.commands.profile import profile_generation as work

    work(model, prompt, count, writing, how)
    return OK


def _prepare(model: str | None, threads: int | None) -> None:
    """Threads and kernels, before NumPy is imported."""
    here = model is not None and (model in PRESETS or Path(model).exists())
    if threads is not None:
        blas.threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ and here and not is_large(str(model)):
        blas.threads(1)
    tune()


profiles.command(with_options(_step, StepOptions), name="step")
profiles.command(with_options(_generate, GenerationOptions), name="generate")
