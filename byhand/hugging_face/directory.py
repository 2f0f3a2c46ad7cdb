"""A directory as Hugging Face's hub holds a model: config.json beside model.safetensors, in one file or in several."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.bert import (
    BERT_TIED,
    bert_config_from_hugging_face,
    bert_config_to_hugging_face,
    bert_from_hugging_face,
    bert_kind,
    bert_to_hugging_face,
)
from byhand.hugging_face.gpt2 import (
    gpt2_config_from_hugging_face,
    gpt2_config_to_hugging_face,
    gpt2_from_hugging_face,
    gpt2_to_hugging_face,
)
from byhand.hugging_face.llama import (
    LLAMA_TYPES,
    llama_config_from_hugging_face,
    llama_config_to_hugging_face,
    llama_from_hugging_face,
    llama_to_hugging_face,
)
from byhand.hugging_face.mixtral import mixtral_from_hugging_face, mixtral_to_hugging_face
from byhand.hugging_face.mixtral_config import MIXTRAL_TYPES, mixtral_config_from_hugging_face, mixtral_config_to_hugging_face
from byhand.hugging_face.on_disk import arrays_in, open_arrays
from byhand.hugging_face.t5 import (
    t5_config_from_hugging_face,
    t5_config_to_hugging_face,
    t5_copies,
    t5_from_hugging_face,
    t5_to_hugging_face,
)
from byhand.run_directory import write_whole

Config = GPT2Config | LlamaConfig | BertConfig | T5Config


class _Family(NamedTuple):
    """The maps of one family of models: of its configs and of its states, each both ways."""

    kinds: tuple[str, ...]                              # our classes; the first one is saved when none is named
    kind: Callable[[Mapping[str, Any]], str]            # the class that a config.json tells of
    read_config: Callable[[Mapping[str, Any]], Any]
    read_state: Callable[[Mapping[str, NDArray], Any, str], dict[str, NDArray]]
    write_config: Callable[[Any, str], dict[str, Any]]
    write_state: Callable[[Mapping[str, NDArray], Any, str], dict[str, NDArray]]
    copies: Callable[[Any], Iterable[str]]              # their names for arrays that stand in write_state's result under another name too


_GPT2 = _Family(
    ("GPT2",), lambda values: "GPT2",
    gpt2_config_from_hugging_face, lambda state, config, kind: gpt2_from_hugging_face(state),
    lambda config, kind: gpt2_config_to_hugging_face(config), lambda state, config, kind: gpt2_to_hugging_face(state),
    lambda config: ("lm_head.weight",),
)
_LLAMA = _Family(
    ("Llama",), lambda values: "Llama",
    llama_config_from_hugging_face, lambda state, config, kind: llama_from_hugging_face(state, config),
    lambda config, kind: llama_config_to_hugging_face(config), lambda state, config, kind: llama_to_hugging_face(state, config),
    lambda config: ("lm_head.weight",) if config.tied else (),
)
_MIXTRAL = _Family(
    ("Mixtral",), lambda values: "Mixtral",
    mixtral_config_from_hugging_face, lambda state, config, kind: mixtral_from_hugging_face(state, config),
    lambda config, kind: mixtral_config_to_hugging_face(config), lambda state, config, kind: mixtral_to_hugging_face(state, config),
    lambda config: ("lm_head.weight",) if config.tied else (),
)
_BERT = _Family(
    ("BertMaskedLM", "BertSequenceClassifier", "BertTokenClassifier", "Bert"), bert_kind,
    bert_config_from_hugging_face, bert_from_hugging_face, bert_config_to_hugging_face, bert_to_hugging_face,
    lambda config: BERT_TIED,
)
_T5 = _Family(
    ("T5",), lambda values: "T5",
    t5_config_from_hugging_face, lambda state, config, kind: t5_from_hugging_face(state, config),
    lambda config, kind: t5_config_to_hugging_face(config), lambda state, config, kind: t5_to_hugging_face(state, config),
    t5_copies,
)
_BY_MODEL_TYPE = {"gpt2": _GPT2, "bert": _BERT, "t5": _T5} | dict.fromkeys(LLAMA_TYPES, _LLAMA) | dict.fromkeys(MIXTRAL_TYPES, _MIXTRAL)
_BY_CONFIG: dict[type, _Family] = {GPT2Config: _GPT2, LlamaConfig: _LLAMA, MixtralConfig: _MIXTRAL, BertConfig: _BERT, T5Config: _T5}


def hugging_face_kind(path: str | os.PathLike) -> str:
    """The name of our class for the model in a directory: GPT2, Llama, Mixtral, T5, or of BERT what config.json's `architectures` say:
    Bert, BertMaskedLM, BertSequenceClassifier or BertTokenClassifier.

    Raises
    ------
    ValueError   if config.json is missing or damaged, or tells of another kind of model
    """
    family, values = _told("hugging_face_kind", Path(path))
    return family.kind(values)


def load_hugging_face(path: str | os.PathLike, *, kind: str | None = None, lazily: bool = False) -> tuple[Config, dict[str, NDArray]]:
    """The config and the state, under our names, of the model in a directory: ``config.json`` and ``model.safetensors``, or its shards.

    Parameters
    ----------
    path   the directory, of a GPT-2, Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2-MoE, Qwen3-MoE, BERT or T5
    kind   the class of ours that is wanted: the one that `hugging_face_kind` names, or Bert for the encoder of any BERT
    lazily   whether arrays stay in their files until they are used (`OnDisk`), where a family's map allows it: for checkpoints that are
             larger than memory

    Returns
    -------
    config : GPT2Config, LlamaConfig, MixtralConfig, BertConfig or T5Config
    state    for `load_state_dict` of the class `kind` of that config, which casts it; bfloat16, which NumPy lacks, comes as float32, every
             other dtype as it is

    Raises
    ------
    ValueError   if a file is missing or damaged, or holds another kind of model
    """
    path = Path(path)
    family, values = _told("load_hugging_face", path)
    kind = family.kind(values) if kind is None else kind
    choice("load_hugging_face", family.kinds, kind=kind)
    config = family.read_config(values)
    # The maps of the others cut and turn arrays. That of Mixtral stacks those of experts, each one as it is read.
    from_disk = family is _MIXTRAL or (lazily and family is _LLAMA)
    read: Callable[[Path], Mapping[str, Any]] = open_arrays if from_disk else _arrays
    state = family.read_state(_weights(path, read), config, kind)
    return config, {name: np.asarray(array) for name, array in state.items()} if from_disk and not lazily else state


def save_hugging_face(path: str | os.PathLike, config: Config, state: Mapping[str, NDArray], *, kind: str | None = None) -> Path:
    """Write config.json and model.safetensors into the directory `path`, as transformers' ``from_pretrained`` reads them.

    Parameters
    ----------
    path     the directory; made if there is none, what it holds under these names is replaced
    config   of the model
    state    its arrays by our names
    kind     the class that has this state: Bert, BertMaskedLM (if None), BertSequenceClassifier or BertTokenClassifier; of other configs
             there is but one

    Raises
    ------
    ValueError   if the names are not those of the config and the kind, or transformers has no model of these options
    """
    path = Path(path)
    demand("save_hugging_face", type(config) in _BY_CONFIG, "the config of a GPT-2, Llama, Mixtral, BERT or T5", config=config)
    family = _BY_CONFIG[type(config)]
    kind = family.kinds[0] if kind is None else kind
    choice("save_hugging_face", family.kinds, kind=kind)
    values = family.write_config(config, kind)
    theirs = family.write_state(state, config, kind)
    for name in family.copies(config):
        theirs.pop(name, None)                                          # what is tied is not written twice
    dtypes = {str(array.dtype) for array in theirs.values()}
    demand("save_hugging_face", len(dtypes) == 1, "arrays of one dtype", dtypes=sorted(dtypes))
    values["torch_dtype"] = dtypes.pop()
    content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in theirs.items()}, {"format": "pt"})
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / "model.safetensors", content)
    write_whole(path / "config.json", (json.dumps(values, indent=2) + "\n").encode())
    return path


def _told(who: str, path: Path) -> tuple[_Family, dict[str, Any]]:
    """What config.json holds, and whose it is."""
    values = _json(path / "config.json")
    choice(who, _BY_MODEL_TYPE, model_type=values.get("model_type"))
    return _BY_MODEL_TYPE[values["model_type"]], values


def _weights(path: Path, read: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """All arrays by their names, from the one file or from those that the index lists."""
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").exists() or not index.exists():
        return dict(read(path / "model.safetensors"))
    places: Any = _json(index).get("weight_map")
    demand("load_hugging_face", isinstance(places, dict), f"a weight_map in {index}", weight_map=places)
    arrays: dict[str, Any] = {}
    for file in set(places.values()):
        demand("load_hugging_face", Path(file).name == file, f"files beside {index}", file=file)
    for file in sorted(set(places.values())):
        arrays |= read(path / file)
    missing = sorted(places.keys() - arrays.keys())
    demand("load_hugging_face", not missing, f"every array that {index} lists in its file", missing=missing)
    return arrays


def _arrays(file: Path) -> dict[str, NDArray]:
    """The arrays of one safetensors file by name."""
    try:
        content = file.read_bytes()
    except OSError as error:
        other = " (pytorch_model.bin is there, which only PyTorch can read)" if (file.parent / "pytorch_model.bin").exists() else ""
        raise ValueError(f"load_hugging_face needs a file it can read; {file}: {error.strerror}{other}") from error
    return arrays_in(content, who="load_hugging_face", file=file)


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"load_hugging_face needs a file it can read; {file}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"load_hugging_face needs JSON in {file}; {error}") from error
    demand("load_hugging_face", isinstance(values, dict), f"names and values in {file}", content=values)
    return values
