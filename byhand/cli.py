"""The command `byhand`. It imports neither NumPy nor PyTorch until a subcommand needs them."""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from rich.console import Console

from byhand import blas
from byhand.checks import NonFiniteError, demand
from byhand.finetune_config import FinetuneConfig, config_of_run
from byhand.run_config import RunConfig, resolve
from byhand.training_config import PRESETS, TrainingConfig

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


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
    note = _threads(resolved, large=resolved.model.parameters >= 5_000_000)
    if note:
        _log(note)
    from byhand.commands.train import train

    return OK if train(resolved) else FAILED


def _tune() -> None:
    """Choose NumPy's kernels, before it is imported, and say so."""
    note = blas.tune()
    if note:
        _log(note)


def _threads(config: RunConfig, *, large: bool) -> str | None:
    """Threads and kernels are chosen before anything imports NumPy; the line that says so, if there is one."""
    if config.threads:
        blas.threads(config.threads)
    elif not large and "OMP_NUM_THREADS" not in os.environ:
        blas.threads(1)  # sharing such small products gains little, and loses all of it where the other cores are busy
    return blas.tune()


def _with_options(function: Callable[..., int], options: type) -> Callable[..., int]:
    """`function` as cyclopts should see it: `**options` spelled out, one optional keyword for every field of the dataclass."""
    annotate: Any = Annotated  # made at run time, which type checkers do not follow
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    for field in dataclasses.fields(options):
        default = "" if field.default is None else f" Default: {json.dumps(field.default)}."
        kind: Any = field.type
        hint = annotate[kind | None, cyclopts.Parameter(help=field.metadata["help"] + default, show_default=False, consume_multiple=True)]
        parameters.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))

    def command(*args: Any, **given: Any) -> int:
        return function(*args, **given)

    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


app.command(_with_options(_train, TrainingConfig), name="train")


def _finetune(*, config: Path | None = None, **options: Any) -> int:
    """Fine-tune a model on text with adapters (LoRA, DoRA, IA³ …), on a base that may be quantized to 4 bits (QLoRA).

    Parameters
    ----------
    config
        A .json or .yaml file with any of these options; the command line overrules it.
    """
    resolved = resolve(FinetuneConfig, config, **options)
    settings = resolved
    if resolved.resume is not None:
        others = [name for name, value in options.items() if value is not None and name != "resume"]
        demand("finetune", config is None and not others, "--resume without other options: the run goes on with its own",
               options=["config"] * (config is not None) + others)
        settings = config_of_run(resolved.resume)
    note = _threads(settings, large=_is_large(str(settings.base)))
    if note:
        _log(note)
    from byhand.commands.finetune import finetune

    return OK if finetune(resolved).kept else FAILED


def _is_large(base: str) -> bool:
    """Whether a base has 5 million parameters or more: by the preset, or by the files of a directory."""
    if base in PRESETS:
        return PRESETS[base].parameters >= 5_000_000
    files = [*Path(base).glob("*.safetensors"), *Path(base).glob("step-*/*.safetensors")]
    return sum(file.stat().st_size for file in files if file.is_file()) >= 20_000_000


app.command(_with_options(_finetune, FinetuneConfig), name="finetune")


def _validate(tier: Literal["quick", "convergence", "long", "resume", "memory"], *, model: str | None = None, config: Path | None = None,
              bound: int | None = None, **options: Any) -> int:
    """Run a tier of fine-tuning that can fail: what it asks, what it saw, and 0 or 1.

    Where an option is not given, the tier's own counts, not the default told below: all-linear, r 16, list-operations, 16 × 64 tokens.

    Parameters
    ----------
    tier
        quick: 10 steps; convergence: 100, the loss must fall; long: 500; resume: killed and gone on with, bit by bit; memory: its peak.
    model
        What is fine-tuned, as --base; by default a llama-1m that is pre-trained on the standard library's source, once.
    config
        A .json or .yaml file with options of `byhand finetune`; the steps are the tier's.
    bound
        Of the tier memory, in 10⁶ bytes, for a model that has none stated.
    """
    from byhand.tiers.plan import make_plan

    plan = make_plan(tier, model=model, file=config, bound=bound, options=options)
    note = _threads(plan.config, large=False)
    if note:
        _log(note)
    from byhand.commands.validate import validate

    return OK if validate(plan) else FAILED


app.command(_with_options(_validate, FinetuneConfig), name="validate")


@app.command(name="generate")
def _generate(model: str | None = None, *, adapter: str | None = None, prompt: str = "def ", count: int = 64, seed: int = 0,
              expert_memory: str | None = None) -> int:
    """Continue a text greedily, in NumPy: by the base alone and, where an adapter is given, with it.

    Parameters
    ----------
    model
        The directory of a `byhand train`, `byhand quantize` or `byhand merge`, a directory as Hugging Face's hub holds a model, or a preset
        with random weights. Not needed where the adapter is a run, which knows its base.
    adapter
        LoRA's files, peft's or ours, MixLoRA's, or the directory of a `byhand finetune`.
    prompt
        The text to continue.
    count
        Tokens to add.
    seed
        Of random weights.
    expert_memory
        MixLoRA: how much of the experts is held in memory, 64MB say; the others are read when tokens need them. By default all that were
        needed once.
    """
    _tune()
    from byhand.commands.adapters import generate

    generate(model, adapter=adapter, prompt=prompt, count=count, seed=seed, expert_memory=expert_memory)
    return OK


@app.command(name="merge")
def _merge(model: str | None = None, *, adapter: str, out: str) -> int:
    """Add an adapter into its base's weights, and write the whole model as Hugging Face's hub holds it.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`. Not needed where the adapter is a run, which knows its base.
    adapter
        LoRA's files, peft's or ours, or the directory of a `byhand finetune`.
    out
        The new directory.
    """
    _tune()
    from byhand.commands.adapters import merge

    merge(model, adapter=adapter, out=out)
    return OK


@app.command(name="export")
def _export(model: str, *, out: str, seed: int = 0) -> int:
    """Write a base as Hugging Face's hub holds a model, so that transformers loads it and peft puts adapters on it.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`.
    out
        The new directory.
    seed
        Of random weights.
    """
    _tune()
    from byhand.commands.adapters import export

    export(model, out=out, seed=seed)
    return OK


@app.command(name="quantize")
def _quantize(model: str, *, out: str, kind: Literal["nf4", "fp4"] = "nf4", block: int = 64, double: bool = False, seed: int = 0) -> int:
    """Write a base with the matrices of its blocks in 4 bits, one block at a time.

    Parameters
    ----------
    model
        The base, as for `byhand finetune`.
    out
        The new directory.
    kind
        The table of 16 numbers.
    block
        How many numbers share a scale.
    double
        Quantize the scales too.
    seed
        Of random weights.
    """
    _tune()
    from byhand.commands.adapters import quantize
    from byhand.finetuning.base import Quantization

    quantize(model, out=out, quantized=Quantization(kind, block, double), seed=seed)
    return OK


@app.command(name="memory")
def _memory(
    *,
    model: str,
    method: Literal["qlora", "lora", "full"] = "qlora",
    batch: int = 1,
    length: int = 128,
    r: int = 8,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    double: bool = True,
    recompute: bool = True,
    measure: bool = False,
) -> int:
    """Tell how much memory a step of fine-tuning takes in NumPy, before anything is built.

    Parameters
    ----------
    model
        A preset: smollm2-135m, tinyllama-1.1b, llama-2-7b …
    method
        qlora: matrices in 4 bits, and adapters; lora: matrices in float32, and adapters; full: every weight trains.
    batch
        Sequences in a step.
    length
        Tokens of each.
    r
        The rank of the adapters.
    targets
        The layers that get one.
    double
        Whether the scales of the 4-bit matrices are quantized too.
    recompute
        Whether blocks keep only their inputs.
    measure
        Run one step, with random weights and in a process of its own, and compare.
    """
    _tune()
    from byhand.commands.memory import memory

    options: dict[str, Any] = dict(method=method, batch=batch, length=length, r=r, double=double, recompute=recompute)
    options["targets"] = [name for names in targets for name in names.split(",")]
    return OK if memory(model, measure=measure, **options) else FAILED


experiments = cyclopts.App(name="experiment", help="Train variants side by side and tell which one is better by how much.")
app.command(experiments)


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
                _log(note)
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
        experiments.command(_with_options(command, options), name=name)

    for name, suite in SUITES.items():
        offer(name, suite.question, Architecture, functools.partial(compare_architectures, name))
    offer("long-context", "How well each rope scaling reads texts longer than those it was trained on", LongContext, extend_context)
    offer("multi-task", "What MixLoRA gains over a single LoRA on eight tasks at once", MultiTask, learn_tasks)


drawings = cyclopts.App(name="draw", help="Pictures of what goes on inside a model.")
app.command(drawings)


@drawings.command(name="attention")
def _draw_attention(
    model: str,
    *,
    text: str = "def add(a, b):\n    return a + b\n",
    target: str | None = None,
    ids: str | None = None,
    layer: str | None = None,
    head: int | None = None,
    out: Path = Path("attention.html"),
    seed: int = 0,
) -> int:
    """Draw how the tokens of a text attend to each other: as .html (a page to point at), .png or .svg.

    Parameters
    ----------
    model
        A preset with random weights (gpt2-1m, llama-nano …), the directory of a `byhand train`, a .safetensors file of a
        `byhand experiment`, or a directory in the format of Hugging Face's hub.
    text
        What the model reads.
    target
        What it writes, for a model that reads one text and writes another; by default the same.
    ids
        The numbers of tokens to read, in place of a text.
    layer
        The layer's number, from 0, or its name; by default all.
    head
        The head's number, from 0; by default all.
    out
        The picture.
    seed
        Of random weights.
    """
    _tune()
    from byhand.commands.draw import draw_attention

    draw_attention(model, text=text, target=target, ids=ids, layer=layer, head=head, out=out, seed=seed)
    return OK


@drawings.command(name="experts")
def _draw_experts(
    run: str,
    *,
    text: str = "def add(a, b):\n    return a + b\n",
    ids: str | None = None,
    layer: str | None = None,
    show: Literal["both", "tokens", "training"] = "both",
    out: Path = Path("experts.png"),
    seed: int = 0,
) -> int:
    """Draw which experts the tokens of a text go to, and how evenly a run used its experts: as .png or .svg.

    Parameters
    ----------
    run
        The directory of a `byhand train` of a mixture of experts, or of a `byhand finetune` with MixLoRA; for the tokens alone also a
        preset with random weights (mixtral-nano …), or a directory in the format of Hugging Face's hub.
    text
        What the model reads.
    ids
        The numbers of tokens to read, in place of a text.
    layer
        The number of a block, or the name of a layer; by default all.
    show
        The tokens' experts, their use over training, or, where there are both, both.
    out
        The picture.
    seed
        Of random weights.
    """
    _tune()
    from byhand.commands.draw_experts import draw_experts

    draw_experts(run, text=text, ids=ids, layer=layer, show=show, out=out, seed=seed)
    return OK


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
        _log(f"{error}\nTry 'byhand --help' or 'byhand {known} --help'.")
        return WRONG_USAGE
    except NonFiniteError as error:
        _log(" ".join([f"{error}.", *_notes(error)]))
        return FAILED
    except ValueError as error:
        _log(f"{error}")
        return WRONG_USAGE
    except KeyboardInterrupt as error:
        _log(" ".join(["interrupted.", *_notes(error)]))
        return INTERRUPTED
    except BrokenPipeError:  # `byhand train | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # the disk is full, say
        _log(f"{error}")
        return FAILED
    return result if isinstance(result, int) else OK


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _log(text: str) -> None:
    Console(stderr=True).print(f"byhand: {text}", soft_wrap=True, markup=False, highlight=False)
