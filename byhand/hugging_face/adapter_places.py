"""Where the adapters of peft's files go in our models: names, shapes, and GPT-2's attention, which is one module there and three here."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.targets import block_number
from byhand.hugging_face.gpt2 import gpt2_names
from byhand.hugging_face.llama import llama_names
from byhand.hugging_face.mixtral import mixtral_names

Config = GPT2Config | LlamaConfig
Adapter = dict[str, NDArray]        # lora_A (R, I), lora_B (O, R), with DoRA magnitude (O,)


class Place(NamedTuple):
    """A module of theirs: one of ours, or the three that c_attn holds side by side.

    modules : tuple of str   our names
    outputs : tuple of int   O of each: rows of a matrix, of an embedding its width
    inputs : int             I: columns of a matrix, of an embedding its vocabulary
    embedding : bool
    """

    modules: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: int
    embedding: bool


def places(config: Config) -> dict[str, Place]:
    """Every module of the transformers model that ours can have an adapter on, by its name there."""
    found = {}
    for theirs, ours in _joined(config, ".weight").items():
        kind = ours[0].rpartition(".")[2]
        if kind.endswith("_proj") or kind in ("tokens", "head"):
            shapes = [_shape(config, name) for name in ours]
            embedding = kind == "tokens"
            (inputs,) = {shape[0] if embedding else shape[1] for shape in shapes}
            found[theirs] = Place(ours, tuple(shape[1] if embedding else shape[0] for shape in shapes), inputs, embedding)
    return found


def biases(config: Config) -> dict[str, dict[str, int]]:
    """{their module: {our module: size}}, of every bias of the model."""
    return {theirs: {name: _shape(config, name)[0] for name in ours} for theirs, ours in _joined(config, ".bias").items()}


def joined(place: Place, adapters: Mapping[str, Adapter], scalings: Mapping[str, float], base: Mapping[str, NDArray]) -> Adapter:
    """Our adapters on the modules of one place as one adapter, scaled as the first of them.

    One module's stays as it is, and so does A where all modules share it. Otherwise s₁B₁A₁ over s₂B₂A₂ is the product of

        s₁ · [B₁       0     ]  and  [A₁]
             [0   (s₂/s₁) B₂ ]       [A₂],

    a single adapter whose rank is the sum of theirs. A module without an adapter gets rows of zeros, and its own norms as magnitude.
    """
    given = [name for name in place.modules if name in adapters]
    first, scale = adapters[given[0]], scalings[given[0]]
    shared = len(given) == len(place.modules) and all(
        scalings[name] == scale and np.array_equal(adapters[name]["lora_A"], first["lora_A"]) for name in given
    )
    if shared:
        merged = {"lora_A": first["lora_A"], "lora_B": np.concatenate([adapters[name]["lora_B"] for name in given])}
    else:
        lora_A = np.concatenate([adapters[name]["lora_A"] for name in given])
        lora_B = np.zeros((sum(place.outputs), len(lora_A)), first["lora_B"].dtype)
        row = column = 0
        for name, rows in zip(place.modules, place.outputs, strict=True):
            if name in adapters:
                part = adapters[name]["lora_B"]
                block = part if scalings[name] == scale else part * (scalings[name] / scale)
                lora_B[row : row + rows, column : column + part.shape[1]] = block
                column += part.shape[1]
            row += rows
        merged = {"lora_A": lora_A, "lora_B": lora_B}
    if "magnitude" in first:
        merged["magnitude"] = np.concatenate([
            adapters[name]["magnitude"] if name in adapters else np.linalg.norm(_of_base(base, f"{name}.weight"), axis=1)
            for name in place.modules
        ]).astype(first["magnitude"].dtype)
    return merged


def split(place: Place, adapter: Adapter, ranks: Mapping[str, int] | None, scalings: Mapping[str, float]) -> dict[str, Adapter]:
    """The way back. `ranks` tells what was joined, if that is known; otherwise every module gets its rows of B, and all of A."""
    lora_A, lora_B = adapter["lora_A"], adapter["lora_B"]
    stacked = ranks is not None and len(lora_A) == sum(ranks.values())
    found: dict[str, Adapter] = {}
    row = column = 0
    for name, rows in zip(place.modules, place.outputs, strict=True):
        if ranks is None or name in ranks:
            found[name] = {"lora_A": lora_A, "lora_B": lora_B[row : row + rows]}
            if ranks is not None and stacked:
                columns = slice(column, column + ranks[name])
                relative = scalings[name] / next(iter(scalings.values()))
                block = lora_B[row : row + rows, columns]
                found[name] = {"lora_A": lora_A[columns], "lora_B": block if relative == 1 else block / relative}
                column += ranks[name]
            if "magnitude" in adapter:
                found[name]["magnitude"] = adapter["magnitude"][row : row + rows]
        row += rows
    return found


def joined_bias(parts: Iterable[str], state: Mapping[str, NDArray], base: Mapping[str, NDArray]) -> NDArray:
    """Our biases of these modules, one after another; those that did not train come from the base."""
    return np.concatenate([state[f"{name}.bias"] if f"{name}.bias" in state else _of_base(base, f"{name}.bias") for name in parts])


def joined_alpha(alpha: float, rank: int, joined_rank: int, *, rslora: bool) -> float:
    """The α that gives an adapter of the joined rank the scaling that α gives one of `rank`."""
    ratio = math.sqrt(joined_rank / rank) if rslora else 0.0
    whole = alpha * ratio if rslora else alpha * joined_rank / rank
    return int(whole) if float(whole).is_integer() else whole


def shortest(chosen: Iterable[str], every: Iterable[str]) -> tuple[list[str], list[int] | None]:
    """(names, layers) that mean exactly the modules `chosen`: ends of names if they suffice, in some layers only if they must."""
    chosen = list(chosen)
    ends = list(dict.fromkeys(map(_end, chosen)))
    alike = [name for name in every if _end(name) in ends]
    if set(alike) == set(chosen):
        return ends, None
    layers = {block_number(name) for name in chosen}
    if None not in layers and {name for name in alike if block_number(name) in layers} == set(chosen):
        return ends, sorted(n for n in layers if n is not None)
    return chosen, None


def pattern(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(default, exceptions) that give these values: the most frequent one, and the others by the ends of names, or by whole names."""
    default = Counter(values.values()).most_common(1)[0][0]
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        groups.setdefault(_end(name), {})[name] = value
    exceptions: dict[str, Any] = {}
    for end, group in groups.items():
        alike = len(set(group.values())) == 1
        found = {end: next(iter(group.values()))} if alike else group
        exceptions |= {key: value for key, value in found.items() if value != default}
    return default, exceptions


def _joined(config: Config, end: str) -> dict[str, tuple[str, ...]]:
    """{their module: our modules}, of those that have an array of this end; GPT-2's c_attn has three, in the order of its columns."""
    found: dict[str, tuple[str, ...]] = {}
    for ours, theirs in _names(config):
        if ours.endswith(end):
            name = theirs.removesuffix(end)
            found[name] = (*found.get(name, ()), ours.removesuffix(end))
    return found


def _names(config: Config) -> Iterable[tuple[str, str]]:
    if isinstance(config, MixtralConfig):
        return mixtral_names(config).items()                        # without the experts' stacks, which have no adapter
    if isinstance(config, LlamaConfig):
        return llama_names(config).items()
    return ((ours, f"transformer.{theirs}") for ours, (theirs, _, _) in gpt2_names(config.n_layers))


def _shape(config: Config, module: str) -> tuple[int, int]:
    """Of a module's weight; of a norm's (D, 1)."""
    d, f, h = config.d_model, config.d_hidden, config.n_heads
    e, k = (config.head_width, config.n_kv_heads) if isinstance(config, LlamaConfig) else (d // h, h)
    if isinstance(config, MixtralConfig) and ".shared." in module:
        f = config.d_shared
    assert f and e and k            # the configs have filled them in
    shapes = {"q_proj": (h * e, d), "k_proj": (k * e, d), "v_proj": (k * e, d), "o_proj": (d, h * e),
              "gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f), "tokens": (config.vocabulary, d), "head": (config.vocabulary, d)}
    return shapes.get(module.rpartition(".")[2], (d, 1))


def _end(name: str) -> str:
    """The last part of a name; of GPT-2's two projections called c_proj, two parts."""
    return ".".join(name.split(".")[-2 if name.endswith(".c_proj") else -1 :])


def _of_base(base: Mapping[str, NDArray], name: str) -> NDArray:
    held = f"{name} in `base`, as peft's file holds query, key and value together"
    demand("save_adapter", name in base, held, base=sorted(base)[:4])
    return base[name]
