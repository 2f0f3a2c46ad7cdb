"""What every run that trains a model needs to know, and where it is said: the defaults, a file, the command line, each overruling the
one before."""

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from byhand import strict_yaml
from byhand.checks import choice, demand, in_range, not_negative, positive, size

Config = TypeVar("Config", bound="RunConfig")


def option(default: Any, help: str) -> Any:
    """A field of a configuration, with the sentence that the command line's help shows."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The options that `byhand train` and `byhand finetune` share; the command line and its help are made from these fields.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    backend: Literal["numpy", "torch", "both"] = option("numpy", "Which implementation trains; both: the same run twice, compared.")
    text: str | None = option(None, "What to train on: a file, a directory, or library (the standard library's own source), topics "
                              "(English, Python's help topics), list-operations.")
    steps: int = option(100, "Updates of the weights.")
    batch: int = option(32, "Windows of text an update.")
    length: int = option(32, "Tokens (bytes) a window.")
    accumulate: int = option(1, "Micro-batches an update: less memory, the same gradient.")
    recompute: bool = option(False, "Keep only each block's input and run it again in the backward: less memory, the same bits.")
    lr: float = option(2e-3, "The highest learning rate.")
    warmup: int = option(30, "Steps in which the learning rate rises, at most all of them.")
    final_lr: float = option(0.3, "The learning rate at the end of the cosine, as a share of the highest.")
    weight_decay: float = option(0.1, "AdamW's decay of the matrices; vectors are not decayed.")
    max_norm: float = option(1.0, "Gradients of a larger norm are scaled down to it.")
    dropout: float = option(0.1, "The share of activations that is dropped.")
    loss_scale: float = option(1.0, "The loss is multiplied by it before the backward, the gradients are divided by it after.")
    seed: int = option(0, "Of the initial weights, the batches and the dropout masks.")
    dtype: Literal["float32", "float64"] = option("float32", "The precision of everything.")
    device: Literal["cpu", "cuda"] = option("cpu", "Where PyTorch computes; NumPy computes on the CPU.")
    threads: int | None = option(None, "CPU threads; by default 1 for models below 5 million parameters.")
    validate_every: int = option(25, "Steps between two looks at the text kept apart.")
    validation_batches: int = option(4, "Batches in one such look.")
    every: int = option(10, "Steps between two printed lines.")
    prompt: str = option("def ", "What the sample at the end continues.")
    sample: int = option(64, "Bytes of that sample; 0 for none.")
    name: str = option("train", "The run directory is runs/NAME-TIMESTAMP.")
    out: str | None = option(None, "The run directory, in place of that.")

    def __post_init__(self) -> None:
        who = self.command()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is float and isinstance(value, int) and not isinstance(value, bool):
                demand(who, abs(value) < 1 << 1023, f"{field.name} as a number that a float can hold", **{field.name: value})
                object.__setattr__(self, field.name, float(value))  # a file may say 1 for 1.0
            if field.type is bool:
                demand(who, isinstance(value, bool), f"{field.name} as true or false", **{field.name: value})
            if field.type in (str, str | None):
                kinds = (str,) if field.type is str else (str, type(None))
                hint = " (yes, no, on and off mean true and false in YAML, unless they stand in quotes)" if isinstance(value, bool) else ""
                demand(who, isinstance(value, kinds), f"{field.name} as text{hint}", **{field.name: value})
            if typing.get_origin(field.type) is Literal:
                choice(who, typing.get_args(field.type), **{field.name: value})
        demand(who, self.backend != "numpy" or self.device == "cpu", "device 'cpu' for the numpy backend", device=self.device)
        size(who, steps=self.steps, batch=self.batch, length=self.length, accumulate=self.accumulate)
        size(who, validate_every=self.validate_every, validation_batches=self.validation_batches, every=self.every)
        if self.threads is not None:
            size(who, threads=self.threads)
        size(who, at_least=0, warmup=self.warmup, sample=self.sample, seed=self.seed)
        demand(who, self.seed < 1 << 64, "seed < 2^64", seed=self.seed)
        demand(who, self.accumulate <= self.batch, f"accumulate <= batch ({self.batch})", accumulate=self.accumulate)
        positive(who, lr=self.lr, max_norm=self.max_norm, loss_scale=self.loss_scale)
        not_negative(who, weight_decay=self.weight_decay)
        in_range(who, 0, 1, dropout=self.dropout, final_lr=self.final_lr)
        demand(who, bool(self.prompt) or not self.sample, "a prompt of at least one byte", prompt=self.prompt)
        demand(who, bool(self.name) and not set(self.name) & set("/\\"), "a name without slashes", name=self.name)

    @classmethod
    def command(cls) -> str:
        """The command that these options are of, for its errors."""
        return "run"

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for the run directory; `resolve` reads them back."""
        return dataclasses.asdict(self)


def resolve(kind: type[Config], file: str | Path | None = None, **options: Any) -> Config:
    """A configuration of that kind: the defaults, overruled by the file's options, overruled by `options` (None: not given).

    Raises
    ------
    ValueError   if an option is unknown (the nearest is suggested) or out of its range, or the file cannot be read
    """
    given = {} if file is None else read(kind.command(), file)
    _known(f"the configuration {file}", given, [field.name for field in dataclasses.fields(kind)])
    return kind(**given | {name: value for name, value in options.items() if value is not None})


def read(who: str, path: str | Path) -> dict[str, Any]:
    """The options in a .json, .yaml or .yml file.

    Raises
    ------
    ValueError   if it does not exist, is of another kind, cannot be parsed, or is not a map of names to values
    """
    path = Path(path)
    kind = path.suffix.lower()
    demand(who, kind in (".json", ".yaml", ".yml"), "a configuration in a .json, .yaml or .yml file", path=str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")         # some editors put the mark before the text that the name speaks of
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{who} needs a configuration it can read; {path}: {getattr(error, 'strerror', None) or error}") from error
    parsed = _parse_json(who, path, text) if kind == ".json" else _parse_yaml(who, path, text)
    demand(who, isinstance(parsed, Mapping), f"names and values in {path}", content=parsed)
    return dict(parsed)


def _known(what: str, given: Mapping[str, Any], names: list[str]) -> None:
    """Fail if a name is none of `names`, suggesting the nearest."""
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else f"; known are {', '.join(names)}"
            raise ValueError(f"{what} has an unknown option {name!r}{hint}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of a JSON object; json would take the last of two values without a word."""
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise ValueError(f"{name!r} is given a second time")
        seen[name] = value
    return seen


def _parse_json(who: str, path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who} needs JSON in {path}; {error}") from error


def _parse_yaml(who: str, path: Path, text: str) -> Any:
    try:
        values = strict_yaml.load(text)
    except ImportError as error:
        raise ValueError(f"{who} needs PyYAML to read {path}: pip install pyyaml, or write the configuration as JSON") from error
    except strict_yaml.YamlError as error:
        raise ValueError(f"{who} needs YAML in {path}; {error}") from error
    return {} if values is None else values
