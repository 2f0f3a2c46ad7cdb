"""The command `byhand`. It imports neither NumPy nor PyTorch until a subcommand needs them."""

import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts

from byhand import blas, cli_adapters, cli_draw, cli_models, cli_profile
from byhand.checks import NonFiniteError
from byhand.cli_common import FAILED, INTERRUPTED, OK, WRONG_USAGE, log, threads, with_options
from byhand.run_config import resolve
from byhand.training_config import TrainingConfig

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG_USAGE", "app", "main"]


def _version() -> str:
    try:
        return f"byhand {importlib.metadata.version('byhand')}"
    except importlib.metadata.PackageNotFoundError:
        return "byhand, not installed"


app = cyclopts.App(name="byhand", help="Transformers written twice, by hand in NumPy and in PyTorch.", version=_version)


def _train(*, config: Path | None = None, **options: Any) -> int:
    """Train a GPT on text, in NumPy, in PyTorch, or in both to compare them.

    Parameters
    ----------
    config
        A .json or .yaml file with any of these options; the command line overrules it.
    """
    resolved = resolve(TrainingConfig, config, **options)
    note = threads(resolved, large=resolved.model.parameters >= 5_000_000)
    if note:
        log(note)
    from byhand.commands.train import train

    return OK if train(resolved) else FAILED


app.command(with_options(_train, TrainingConfig), name="train")
for _name, _command in (cli_adapters.COMMANDS | cli_models.COMMANDS).items():
    app.command(_command, name=_name)

experiments = cyclopts.App(name="experiment", help="Train variants side by side and tell which one is better by how much.")
app.command(experiments)
app.command(cli_draw.drawings)
app.command(cli_profile.profiles)


@functools.cache
def _offer_experiments() -> None:
    """Register every experiment with its options, which stand beside code that needs NumPy: hence only when one is asked for."""
    if "OMP_NUM_THREADS" not in os.environ:
        blas.threads(1)  # the models are small, and several are trained at a time
    note = blas.tune()
    from byhand.commands.experiment import compare_architectures, extend_context, learn_tasks
    from byhand.experiments.architecture import SUITES, Architecture
    from byhand.experiments.long_context import LongContext
    from byhand.experiments.multi_task import MultiTask

    def offer(name: str, question: str, options: type, work: Callable[..., None]) -> None:
        def command(*, out: Path | None = None, docs: Path | None = None, **given: Any) -> int:
            if note:
                log(note)
            work(options(**{key: value for key, value in given.items() if value is not None}), out=out, docs=docs)
            return OK

        command.__doc__ = f"""{question}.

        Parameters
        ----------
        out
            The directory for results; by default one in runs/ that follows from the options, so that the same command goes on.
        docs
            A Markdown document: table and figure go between its comments {name}:start and {name}:end.
        """
        experiments.command(with_options(command, options), name=name)

    for name, suite in SUITES.items():
        offer(name, suite.question, Architecture, functools.partial(compare_architectures, name))
    offer("long-context", "How well each rope scaling reads texts longer than those it was trained on", LongContext, extend_context)
    offer("multi-task", "What MixLoRA gains over a single LoRA on eight tasks at once", MultiTask, learn_tasks)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 (a run failed), 2 (wrong usage) or 130 (interrupted)."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if words[:1] == ["experiment"]:
            _offer_experiments()
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        result = command(*bound.args, **bound.kwargs)
    except cyclopts.CycloptsError as error:
        known = words[0] if words and words[0] in app else "train"
        log(f"{error}\nTry 'byhand --help' or 'byhand {known} --help'.")
        return WRONG_USAGE
    except NonFiniteError as error:
        log(" ".join([f"{error}.", *_notes(error)]))
        return FAILED
    except ValueError as error:
        log(f"{error}")
        return WRONG_USAGE
    except KeyboardInterrupt as error:
        log(" ".join(["interrupted.", *_notes(error)]))
        return INTERRUPTED
    except BrokenPipeError:  # `byhand train | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # the disk is full, say
        log(f"{error}")
        return FAILED
    return result if isinstance(result, int) else OK


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])
