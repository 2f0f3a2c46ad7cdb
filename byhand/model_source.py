"""A model of the NumPy side from wherever it lies: a preset's name, a run directory, a file of weights, a Hugging Face directory."""

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from byhand import configs
from byhand.checks import choice, demand, fail
from byhand.configs.decoder import DecoderConfig
from byhand.run_config import resolve
from byhand.run_directory import load_weights
from byhand.training_config import TrainingConfig

_LARGEST = 1_000_000_000  # parameters of a model that is only made up of random numbers
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}

Tokenize = Callable[[str], tuple[list[int], list[str]]]


class Source(NamedTuple):
    """model : of numpy_impl, ready to run; title : what it is, in a line; tokenize : a text -> its ids, and how each is written."""

    model: Any
    title: str
    tokenize: Tokenize


def open_model(where: str, *, seed: int = 0) -> Source:
    """The model that `where` names.

    Parameters
    ----------
    where   a preset (its weights are random); the directory of a `byhand train`, whose best weights are taken; a file of weights that
            an experiment left; or a directory as Hugging Face's hub holds a model
    seed    of the random weights of a preset

    Raises
    ------
    ValueError   if there is no such thing, or it is damaged
    """
    path = Path(where)
    if where in presets():
        return _random(where, seed)
    if path.suffix == ".safetensors" and path.is_file():
        return _variant(path)
    if (path / "config.json").is_file():
        values = _json(path / "config.json")
        if "model_type" in values:
            return _hugging_face(path)
        if "suite" in values:
            found = sorted(file.name for file in path.glob("*.safetensors"))
            fail("open_model", f"one of the models in {path}: {', '.join(found) or 'there is none yet'}", where)
        return _trained(path)
    if path.exists():
        fail("open_model", "the directory of a run, or of a model with its config.json, or a .safetensors file of an experiment", where)
    choice("open_model", presets(), **{"a preset, or a directory or file that exists,": where})
    raise AssertionError("choice has refused it")


def presets() -> dict[str, Any]:
    """The configs that have a name, of every family."""
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(configs.__path__, "byhand.configs."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if name.endswith("_PRESETS"):
                found |= value
    return found


def as_bytes(text: str) -> tuple[list[int], list[str]]:
    """The bytes of the text, and each as it is written in a picture: spaces and line ends are made visible, others than ASCII are hex.

    Examples
    --------
    >>> as_bytes("a ü")
    ([97, 32, 195, 188], ['a', '␣', 'c3', 'bc'])
    """
    ids = list(text.encode())
    return ids, [_VISIBLE.get(chr(i), chr(i) if 32 < i < 127 else f"{i:02x}") for i in ids]


def _random(name: str, seed: int) -> Source:
    config = presets()[name]
    demand("open_model", getattr(config, "parameters", 0) <= _LARGEST, f"weights for {name}; random ones are for at most {_LARGEST:,}",
           parameters=getattr(config, "parameters", None))
    return Source(_model(config, seed), f"{name}, random weights", _bytes_for(config))


def _trained(path: Path) -> Source:
    training = resolve(TrainingConfig, path / "config.json")
    files = [path / f"{backend}-{which}.safetensors" for which in ("best", "last") for backend in ("numpy", "torch")]
    there = [file for file in files if file.is_file()]
    demand("open_model", bool(there), f"a run with weights, {' or '.join(file.name for file in files)}", path=str(path))
    model = _model(training.model)
    model.load_state_dict(load_weights(there[0]))
    return Source(model, f"{training.preset}, {path.name}/{there[0].name}", _bytes_for(training.model))


def _variant(path: Path) -> Source:
    load_weights(path)  # complains of what is no whole file
    with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata() or {}
    demand("open_model", "config" in about, f"weights with their config in the header, as an experiment writes them, in {path}",
           header=sorted(about))
    config = DecoderConfig.from_dict(json.loads(about["config"]))
    model = _model(config)
    model.load_state_dict(load_weights(path))
    return Source(model, f"{path.parent.name}/{path.stem}", _bytes_for(config))


def _hugging_face(path: Path) -> Source:
    from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face

    config, state = load_hugging_face(path)
    model = _model(config, kind=hugging_face_kind(path))
    model.load_state_dict(state)
    bytes_are_tokens = getattr(config, "vocabulary", 0) == 256 and not (path / "tokenizer.json").is_file()
    return Source(model, path.resolve().name, as_bytes if bytes_are_tokens else tokenizer_in(path))


def _model(config: Any, seed: int = 0, kind: str | None = None) -> Any:
    return model_class(config, "numpy_impl", kind)(config, rng=np.random.default_rng(seed))


def model_class(config: Any, side: str, kind: str | None = None) -> Any:
    """The class of a config's model: XConfig in byhand/configs/FILE.py belongs to X, or the class `kind`, in SIDE/models/FILE.py."""
    module = importlib.import_module(type(config).__module__.replace("byhand.configs", f"{side}.models"))
    return getattr(module, kind or type(config).__name__.removesuffix("Config"))


def _bytes_for(config: Any) -> Tokenize:
    demand("open_model", config.vocabulary >= 256, "a vocabulary of at least 256, for the text's bytes", vocabulary=config.vocabulary)
    return as_bytes


def tokenizer_in(path: Path) -> Tokenize:
    """The tokenizer in the directory; it is opened when a text comes."""
    def tokenize(text: str) -> tuple[list[int], list[str]]:
        file = path / "tokenizer.json"
        demand("open_model", file.is_file(), f"a tokenizer.json in {path}, or ids instead of a text", text=text)
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError("open_model needs the tokenizers library for a text: pip install tokenizers, or give ids") from error
        try:
            encoded = Tokenizer.from_file(str(file)).encode(text)
        except BaseException as error:  # on some malformed files the library panics with what is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            raise ValueError(f"open_model needs a whole tokenizer.json; {file}: {error}") from error
        return encoded.ids, [_shown(token) for token in encoded.tokens]

    return tokenize


def _shown(token: str) -> str:
    for hidden, visible in (("Ġ", "␣"), ("▁", "␣"), ("Ċ", "↵")):
        token = token.replace(hidden, visible)
    return "".join(_VISIBLE.get(letter, letter) for letter in token)


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"open_model needs JSON in {file}; {error}") from error
    demand("open_model", isinstance(values, dict), f"names and values in {file}", content=values)
    return values
