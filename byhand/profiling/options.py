"""What `byhand profile` can be told, beside the model. Nothing here needs NumPy, whose threads are chosen by then."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from byhand.checks import demand, in_range, size
from byhand.generate_options import GenerateOptions
from byhand.run_config import option

_FLAMES = (".svg", ".json", ".folded", ".txt")


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """How it is measured, and what is left behind.

    Raises
    ------
    ValueError   if an option is out of its range, or a file cannot be where it is to be
    """

    backend: Literal["numpy", "torch"] = option("numpy", "By hand in NumPy, or PyTorch.")
    device: Literal["cpu", "cuda"] = option("cpu", "Of PyTorch.")
    threads: int | None = option(None, "CPU threads; by default 1 for models below 5 million parameters.")
    runs: int = option(7, "How often it runs to be timed, plain and watched each; of both, the faster half counts.")
    warmup: int = option(2, "How often it runs before.")
    rows: int = option(25, "Lines of a table.")
    out: tuple[str, ...] = option(("profile.svg",), "Flame graphs: .svg (any browser), .json (speedscope), .folded (collapsed stacks).")
    json: str | None = option(None, "A file for all numbers, as JSON.")
    trace: str | None = option(None, "PyTorch: a file for its profiler's Chrome trace.")

    def __post_init__(self) -> None:
        size("profile", runs=self.runs, rows=self.rows)
        size("profile", at_least=0, warmup=self.warmup)
        if self.threads is not None:
            size("profile", threads=self.threads)
        demand("profile", self.backend == "torch" or self.device == "cpu", "--backend torch for another device than the CPU",
               device=self.device)
        demand("profile", self.backend == "torch" or self.trace is None, "--backend torch for a --trace", trace=self.trace)
        for name in self.out:
            demand("profile", Path(name).suffix.lower() in _FLAMES,
                   "a flame graph with an ending: .svg, .json (speedscope), .folded or .txt", out=name)
        files = [Path(name).resolve() for name in (*self.out, self.json, self.trace) if name is not None]
        demand("profile", len(set(files)) == len(files), "a file of its own for each result", files=[str(file) for file in files])
        for file in files:
            above = next(folder for folder in file.parents if folder.exists())
            demand("profile", not file.is_dir() and above.is_dir(), "files to write to, in directories", file=str(file))


@dataclasses.dataclass(frozen=True)
class StepOptions(ProfileOptions):
    """A step of training, beside that.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    batch: int = option(32, "Sequences in a step.")
    length: int = option(32, "Tokens of each.")
    dropout: float = option(0.1, "The share of activations that is dropped.")
    recompute: bool = option(False, "Keep only each block's input and run it again in the backward.")
    dtype: Literal["float32", "float64"] = option("float32", "The precision of everything.")
    seed: int = option(0, "Of the tokens, the dropout masks, and random weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        size("profile", batch=self.batch, length=self.length)
        size("profile", at_least=0, seed=self.seed)
        demand("profile", self.seed < 1 << 64, "seed < 2^64", seed=self.seed)
        in_range("profile", 0, 1, dropout=self.dropout)


def _fields(kind: Any, *but: str) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(kind) if field.name not in but}


_GENERATE, _PROFILE = _fields(GenerateOptions, "json", "compare"), _fields(ProfileOptions)

# what the command line shows: the options of `byhand generate`, but for what it prints, and those of a profile
GenerationOptions = dataclasses.make_dataclass("GenerationOptions", [
    (name, field.type, option(field.default, field.metadata["help"])) for name, field in (_GENERATE | _PROFILE).items()])


def generation_options(given: Mapping[str, Any]) -> tuple[GenerateOptions, ProfileOptions]:
    """The options of the command line, told apart; None: not given.

    Raises
    ------
    ValueError   if one is out of its range
    """
    told = {name: value for name, value in given.items() if value is not None}
    return (GenerateOptions(**{name: value for name, value in told.items() if name in _GENERATE}),
            ProfileOptions(**{name: value for name, value in told.items() if name in _PROFILE}))
