"""A model of the NumPy side from wherever it lies: a preset's name, a run directory, a file of weights, a Hugging Face directory."""

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from byhand import configs
from byhand.checks import choice, demand, fail
from byhand.configs.decoder import DecoderConfig
from byhand.filling import filled
from byhand.hugging_face.files import PICKLED, file_in, read_json, refuse_pickle
from byhand.hugging_face.hub import from_hub, is_hub_name
from byhand.hugging_face.on_disk import open_arrays
from byhand.run_config import resolve
from byhand.run_directory import load_weights
from byhand.training_config import TrainingConfig

_LARGEST = 1_000_000_000  # parameters of a model that is only made up of random numbers
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}

Tokenize = Callable[[str], tuple[list[int], list[str]]]


class Source(NamedTuple):
    """model : of numpy_impl, or of torch_impl if that is asked for, ready to run; title : what it is, in a line; tokenize : a text -> its
    ids, and how each is written; path : the directory it came from, None of a preset."""

    model: Any
    title: str
    tokenize: Tokenize
    path: Path | None = None


class Weights(NamedTuple):
    """A model that is not built yet.

    config : of the model;  kind : the name of its class;  state : its arrays by our names, most of them still in their files; None: random
    ones;  title, tokenize, path : as in Source
    """

    config: Any
    kind: str
    state: Mapping[str, Any] | None
    title: str
    tokenize: Tokenize
    path: Path | None = None


def open_model(where: str, *, seed: int = 0, side: str = "numpy", dtype: str = "float32", device: str = "cpu") -> Source:
    """The model that `where` names, in memory once: it is filled from the files array by array.

    Parameters
    ----------
    where   a preset (its weights are random); the directory of a `byhand train`, whose best weights are taken; a file of weights that
            an experiment left; a directory as Hugging Face's hub holds a model; or the name of one on the hub, org/name
    seed    of the random weights of a preset
    side    "numpy" or "torch";  dtype : of the model;  device : of a torch model

    Raises
    ------
    ValueError   if there is no such thing, or it is damaged
    """
    choice("open_model", ("numpy", "torch"), side=side)
    found = open_weights(where)
    return Source(build(found, seed=seed, side=side, dtype=dtype, device=device), found.title, found.tokenize, found.path)


def build(weights: Weights, *, seed: int = 0, side: str = "numpy", dtype: str = "float32", device: str = "cpu") -> Any:
    """The model of these weights, of numpy_impl or torch_impl. Random ones are drawn by NumPy in float32, so that a preset and a seed are
    one model, on both sides and in every dtype."""
    state = weights.state
    if state is None:
        model = model_class(weights.config, "numpy_impl", weights.kind)(weights.config, rng=np.random.default_rng(seed))
        if (side, dtype) == ("numpy", "float32"):
            return model
        state = model.state_dict()
    make = model_class(weights.config, f"{side}_impl", weights.kind)
    return filled(make, weights.config, state, dtype=dtype, device=None if side == "numpy" else device)


def open_weights(where: str) -> Weights:
    """What `where` names, as `open_model` says; all of it that can be checked without reading the arrays is.

    Raises
    ------
    ValueError   if there is no such thing, or it is damaged
    """
    path = Path(where)
    if where in presets():
        return _random(where)
    try:
        (path / "config.json").exists()
    except OSError as error:                              # too long a name, or no leave to look
        raise ValueError(f"open_model needs a preset, or a directory or file; {where[:80]}: {error.strerror}") from error
    if path.suffix == ".safetensors" and path.is_file():
        return _variant(path)
    if path.suffix in PICKLED and path.is_file():
        refuse_pickle("open_model", path)
    if (path / "config.json").is_file():
        values = read_json("open_model", path / "config.json")
        if "model_type" in values or "architectures" in values:
            return _hugging_face(path)
        if "suite" in values:
            found = sorted(file.name for file in path.glob("*.safetensors"))
            fail("open_model", f"one of the models in {path}: {', '.join(found) or 'there is none yet'}", where)
        return _trained(path)
    if path.exists():
        fail("open_model", "the directory of a run, or of a model with its config.json, or a .safetensors file of an experiment", where)
    if is_hub_name(where):
        return _hugging_face(from_hub("open_model", where), title=where)
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


def _random(name: str) -> Weights:
    config = presets()[name]
    demand("open_model", getattr(config, "parameters", 0) <= _LARGEST, f"weights for {name}; random ones are for at most {_LARGEST:,}",
           parameters=getattr(config, "parameters", None))
    return Weights(config, _kind(config), None, f"{name}, random weights", _bytes_for(config))


def _trained(path: Path) -> Weights:
    training = resolve(TrainingConfig, path / "config.json")
    files = [path / f"{backend}-{which}.safetensors" for which in ("best", "last") for backend in ("numpy", "torch")]
    there = [file for file in files if file.is_file()]
    demand("open_model", bool(there), f"a run with weights, {' or '.join(file.name for file in files)}", path=str(path))
    config = training.model
    return Weights(config, _kind(config), _opened(there[0]), f"{training.preset}, {path.name}/{there[0].name}", _bytes_for(config), path)


def _variant(path: Path) -> Weights:
    state = _opened(path)
    with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata() or {}
    demand("open_model", "config" in about, f"weights with their config in the header, as an experiment writes them, in {path}",
           header=sorted(about))
    config = DecoderConfig.from_dict(json.loads(about["config"]))
    return Weights(config, _kind(config), state, f"{path.parent.name}/{path.stem}", _bytes_for(config))


def _opened(file: Path) -> Mapping[str, Any]:
    """The arrays of a file, none of them read yet."""
    try:
        return open_arrays(file)
    except ValueError:
        load_weights(file)                                # says better what is wrong with it
        raise


def _hugging_face(path: Path, *, title: str | None = None) -> Weights:
    from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face

    config, state = load_hugging_face(path, lazily=True)
    bytes_are_tokens = getattr(config, "vocabulary", 0) == 256 and not (path / "tokenizer.json").is_file()
    tokenize = as_bytes if bytes_are_tokens else tokenizer_in(path)
    return Weights(config, hugging_face_kind(path), state, title or path.resolve().name, tokenize, path)


def _kind(config: Any) -> str:
    """The class that a config has if nothing else is said."""
    return type(config).__name__.removesuffix("Config")


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
        file_in("open_model", path, file.name)
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError("open_model needs the tokenizers library for a text: pip install tokenizers, or give ids") from error
        try:
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_padding()                        # of a batch, which this is not
            tokenizer.no_truncation()                     # too long a text is the model's to refuse
            encoded = tokenizer.encode(text)
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
