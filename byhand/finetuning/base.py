"""What fine-tuning starts from: a model's config and weights, wherever they lie, read block by block so that they never stand whole in
memory when a 4-bit copy is all that is wanted."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.model_source import Tokenize, as_bytes, presets, tokenizer_in
from byhand.run_config import resolve
from byhand.run_directory import load_weights
from byhand.training_config import TrainingConfig

Config = GPT2Config | LlamaConfig


class Base(NamedTuple):
    """config; state: weights by our names (None: random ones, from the run's seed); title: what it is, in a line; tokenize: text -> ids;
    path: the directory it came from, None for a preset."""

    config: Config
    state: Mapping[str, NDArray] | None
    title: str
    tokenize: Tokenize
    path: Path | None


def open_base(where: str) -> Base:
    """The base that `where` names: the directory of a `byhand train` (its best weights), of a GPT-2 or a Llama as Hugging Face's hub holds
    them, or a preset.

    Raises
    ------
    ValueError   if there is no such thing, it is damaged, or it is no causal language model
    """
    path = Path(where)
    if (path / "config.json").is_file():
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if "model_type" in values:
            return _hugging_face(path)
        return _trained(path)
    known = {name: config for name, config in presets().items() if isinstance(config, (GPT2Config, LlamaConfig))}
    demand("open_base", where in known, f"a model's directory with its config.json, or a preset from {', '.join(known)}", base=where)
    return Base(known[where], None, f"{where}, random weights", as_bytes, None)


def _trained(path: Path) -> Base:
    training = resolve(TrainingConfig, path / "config.json")
    files = [path / f"{backend}-{which}.safetensors" for which in ("best", "last") for backend in ("numpy", "torch")]
    there = [file for file in files if file.is_file()]
    demand("open_base", bool(there), f"a run with weights, {' or '.join(file.name for file in files)}", path=str(path))
    return Base(training.model, load_weights(there[0]), f"{training.preset}, {path.name}/{there[0].name}", as_bytes, path)


def _hugging_face(path: Path) -> Base:
    from byhand.hugging_face.directory import load_hugging_face

    config, state = load_hugging_face(path)
    demand("open_base", isinstance(config, (GPT2Config, LlamaConfig)), "a causal language model", model=type(config).__name__)
    return Base(config, state, path.resolve().name, tokenizer_in(path), path)


def part(state: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}


def one_by_one(base: Base, finish: Callable[[Any], Any], load: Callable[[Any, Mapping[str, NDArray]], Any]) -> Callable[[Any], Any]:
    """`prepare` for a model's constructor: each block gets the base's weights, by `load`, and is finished before the next is made."""
    numbers: Iterator[int] = iter(range(base.config.n_layers))

    def prepare(block: Any) -> Any:
        number = next(numbers)
        if base.state is not None:
            load(block, part(base.state, f"blocks.{number}."))
        return finish(block)

    return prepare
