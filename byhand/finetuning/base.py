"""What fine-tuning starts from: a model's config and weights, wherever they lie, given to a model block by block, so that none but the
current one stands in full precision when a 4-bit copy is all that is wanted."""

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from byhand import checkpoint
from byhand.checks import demand, fail
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.hugging_face.files import PICKLED, refuse_pickle
from byhand.hugging_face.hub import from_hub, is_hub_name
from byhand.model_source import Tokenize, as_bytes, presets, tokenizer_in
from byhand.run_config import read, resolve
from byhand.run_directory import load_weights, write_whole
from byhand.training_config import TrainingConfig

Config = GPT2Config | LlamaConfig
_TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How the matrices of a base are kept in 4 bits: kind of table, numbers that share a scale, and whether scales are quantized too."""

    kind: Literal["nf4", "fp4"] = "nf4"
    block: int = 64
    double: bool = False

    def __str__(self) -> str:
        return f"{self.kind} in blocks of {self.block}" + (", scales quantized too" if self.double else "")


class Base(NamedTuple):
    """A model to fine-tune.

    config : of the model
    state : its weights by our names, some still in their files; None: random ones, from the run's seed
    title : what it is, in a line
    tokenize : a text -> its ids, and how each is written
    path : the directory it came from; None for a preset
    quantized : how its state is quantized already; None: it is not
    """

    config: Config
    state: Mapping[str, NDArray] | None
    title: str
    tokenize: Tokenize
    path: Path | None
    quantized: Quantization | None = None


def open_base(where: str) -> Base:
    """The base that `where` names: the directory of a `byhand train` (its best weights) or a `byhand quantize`, of a GPT-2, a Llama or a
    Mixtral as Hugging Face's hub holds them, a preset, or the name of one on the hub, org/name.

    Raises
    ------
    ValueError   if there is no such thing, it is damaged, or it is no causal language model
    """
    path = Path(where)
    if path.is_dir() and any(path.glob("step-*")):
        return _quantized(path)
    if (path / "config.json").is_file():
        if "model_type" in read("open_base", path / "config.json"):
            return _hugging_face(path)
        return _trained(path)
    if path.suffix in PICKLED and path.is_file():
        refuse_pickle("open_base", path)
    if where not in presets() and is_hub_name(where):
        return _hugging_face(from_hub("open_base", where))
    known = {name: config for name, config in presets().items() if isinstance(config, (GPT2Config, LlamaConfig))}
    if where not in known:
        near = difflib.get_close_matches(where, known, n=1)
        got = f"{where!r}, which is no directory" if not path.is_dir() else f"{where!r}, a directory without one"
        fail("open_base", f"a model's directory with its config.json, or a preset from {', '.join(known)}",
             got + (f" (did you mean {near[0]!r}?)" if near else ""))
    return Base(known[where], None, f"{where}, random weights", as_bytes, None)


def _trained(path: Path) -> Base:
    training = resolve(TrainingConfig, path / "config.json")
    files = [path / f"{backend}-{which}.safetensors" for which in ("best", "last") for backend in ("numpy", "torch")]
    there = [file for file in files if file.is_file()]
    demand("open_base", bool(there), f"a run with weights, {' or '.join(file.name for file in files)}", path=str(path))
    return Base(training.model, load_weights(there[0]), f"{training.preset}, {path.name}/{there[0].name}", as_bytes, path)


def _hugging_face(path: Path) -> Base:
    from byhand.hugging_face.directory import load_hugging_face

    config, state = load_hugging_face(path, lazily=True)
    if not isinstance(config, (GPT2Config, LlamaConfig)):
        fail("open_base", "a causal language model", f"a {type(config).__name__.removesuffix('Config')}")
    assert isinstance(config, (GPT2Config, LlamaConfig))
    bytes_are_tokens = config.vocabulary == 256 and not (path / "tokenizer.json").is_file()       # as `byhand merge` writes ours
    return Base(config, state, path.resolve().name, as_bytes if bytes_are_tokens else tokenizer_in(path), path)


def save_quantized(directory: str | Path, base: Base, quantization: Quantization, state: Mapping[str, NDArray]) -> Path:
    """Keep a quantized base, codes and scales as they are, for `open_base`; the directory is whole or not there.

    Raises
    ------
    ValueError   if the directory holds one already, or cannot be written to
    """
    has_one = base.tokenize is not as_bytes and base.path is not None and (base.path / _TOKENIZER).is_file()
    tokenizer = (base.path / _TOKENIZER).read_bytes() if has_one and base.path else None
    values = dict(family=type(base.config).__name__, config=dataclasses.asdict(base.config), quantized=dataclasses.asdict(quantization),
                  title=base.title, bytes_are_tokens=base.tokenize is as_bytes,
                  tokenizer_sha256=None if tokenizer is None else hashlib.sha256(tokenizer).hexdigest())
    if tokenizer is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        write_whole(Path(directory) / _TOKENIZER, tokenizer)
    return checkpoint.save(directory, 0, arrays={"weights": state}, values={"base": values}).parent


def _quantized(path: Path) -> Base:
    latest = checkpoint.latest(path)
    assert latest is not None
    kept = checkpoint.load(latest)
    demand("open_base", "base" in kept.values and "weights" in kept.arrays, "the directory of a `byhand quantize`", path=str(path))
    about = kept.values["base"]
    family: Any = {"GPT2Config": GPT2Config, "LlamaConfig": LlamaConfig, "MixtralConfig": MixtralConfig}[about["family"]]
    want, file = about["tokenizer_sha256"], path / _TOKENIZER
    same = want is None or (file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == want)
    demand("open_base", same, f"{file} as it was written", sha256=want)
    tokenize = as_bytes if about["bytes_are_tokens"] else tokenizer_in(path)
    quantized = Quantization(**about["quantized"])
    return Base(family.from_dict(about["config"]), kept.arrays["weights"], f"{about['title']}, {quantized.kind}", tokenize, path, quantized)


def part(state: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}


def one_by_one(base: Base, quantize: Callable[[Any], Any], load: Callable[[Any, Mapping[str, NDArray]], Any]) -> Callable[[Any], Any]:
    """`prepare` for a model's constructor: each block gets the base's weights, by `load`, and is quantized before the next is made; where
    the state holds codes already, the block becomes one that holds codes first."""
    numbers: Iterator[int] = iter(range(base.config.n_layers))

    def prepare(block: Any) -> Any:
        number = next(numbers)
        if base.state is None:
            return quantize(block)
        state = part(base.state, f"blocks.{number}.")
        if base.quantized is None:
            load(block, state)
            return quantize(block)
        block = quantize(block)
        load(block, state)
        return block

    return prepare
