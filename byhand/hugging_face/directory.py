"""A directory as Hugging Face's hub holds a model: config.json beside model.safetensors, in one file or in several."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand
from byhand.configs.bert import BertConfig
from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.families import Family, family_of, family_told
from byhand.hugging_face.files import CARRIED, POOLING, arrays_of, file_in, read_json
from byhand.hugging_face.shapes import demand_shapes
from byhand.hugging_face.writing import write_arrays
from byhand.run_directory import write_whole

Config = GPT2Config | LlamaConfig | BertConfig | T5Config
# What config.json may say beside the model's sizes, of no use to ours: a copy of the model keeps it.
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "id2label", "label2id", "problem_type")
_LAYERS, _EXPERTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), ("num_experts", "num_local_experts")
_NAMED = 100_000                                # layers times experts: those of the largest published models are 15,616
_UNSAID = 20                                     # the max_length that version 4 wrote for models that have none


def hugging_face_kind(path: str | os.PathLike) -> str:
    """The name of our class for the model in a directory: GPT2, Llama, Mixtral, T5, or of BERT and DistilBERT what config.json's
    `architectures` say: Bert, BertMaskedLM, BertSequenceClassifier or BertTokenClassifier.

    Raises
    ------
    ValueError   if config.json is missing or damaged, or tells of another kind of model
    """
    family, values = _told("hugging_face_kind", Path(path))
    return family.kind(values)


def load_hugging_face(path: str | os.PathLike, *, kind: str | None = None, lazily: bool = False) -> tuple[Config, dict[str, NDArray]]:
    """The config and the state, under our names, of the model in a directory: ``config.json`` and ``model.safetensors``, or its shards.

    Names, shapes and dtypes are compared with the config before any array is read.

    Parameters
    ----------
    path   the directory, of a GPT-2, Llama, Mistral, Qwen2, Qwen3, Mixtral, Qwen2-MoE, Qwen3-MoE, BERT, DistilBERT or T5
    kind   the class of ours that is wanted: the one that `hugging_face_kind` names, or Bert for the encoder of any BERT
    lazily   whether arrays stay in their files until they are used (`OnDisk`): for checkpoints that are larger than memory, and to fill
           a model (`byhand.filling`) without a second copy of it

    Returns
    -------
    config : GPT2Config, LlamaConfig, MixtralConfig, BertConfig or T5Config
    state    for `load_state_dict` of the class `kind` of that config, which casts it; bfloat16, which NumPy lacks, comes as float32, every
             other dtype as it is

    Raises
    ------
    ValueError   if a file is missing, damaged, a pickle, or outside the directory, or holds another kind of model
    """
    who, path = "load_hugging_face", Path(path)
    family, values = _told(who, path)
    kind = family.kind(values) if kind is None else kind
    choice(who, family.kinds, kind=kind)
    arrays = arrays_of(who, path)
    _countable(who, values, len(arrays))
    config = family.read_config(values)
    state = family.read_state(arrays, config, kind)
    demand_shapes(who, state, config)
    return config, dict(state) if lazily else {name: np.array(array, order="C") for name, array in state.items()}


def save_hugging_face(path: str | os.PathLike, config: Config, state: Mapping[str, NDArray], *, kind: str | None = None,
                      dtype: str | None = None, max_shard: int | None = None, source: str | os.PathLike | None = None) -> Path:
    """Write config.json and model.safetensors into the directory `path`, as transformers' ``from_pretrained`` reads them.

    Parameters
    ----------
    path     the directory; made if there is none, what it holds under these names is replaced
    config   of the model
    state    its arrays by our names, in memory or on disk
    kind     the class that has this state: Bert, BertMaskedLM (if None), BertSequenceClassifier or BertTokenClassifier; of other configs
             there is but one
    dtype    of the files: float32, float16, bfloat16 or float64; None: that of the arrays, which then must be one
    max_shard   bytes of a file at most; where there are more, shards and their index are written. None: one file
    source   a directory whose tokenizer, generation_config.json, special tokens and, of a sentence encoder, pooling belong to the model:
             they are carried along

    Raises
    ------
    ValueError   if the names are not those of the config and the kind, transformers has no model of these options, or a number is too
                 large for the dtype
    """
    who, path = "save_hugging_face", Path(path)
    family = family_of(who, config)
    kind = family.kinds[0] if kind is None else kind
    choice(who, family.kinds, kind=kind)
    values = family.write_config(config, kind) | ({} if source is None else _kept(who, Path(source)))
    theirs = family.write_state(state, config, kind)
    for name in family.copies(config):
        theirs.pop(name, None)                                          # what is tied is not written twice
    carried = {} if source is None else _carried(who, Path(source))
    if max_shard is not None:
        demand(who, type(max_shard) is int and max_shard > 0, "max_shard as a number of bytes", max_shard=max_shard)
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        written = write_arrays(path, theirs, dtype=dtype, max_shard=max_shard)
    except BaseException:
        if new:
            path.rmdir()
        raise
    for name, file in carried.items():
        if file.resolve() != (path / name).resolve():
            (path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, path / name)
    # torch_dtype is what transformers 4 reads, dtype what version 5 does
    write_whole(path / "config.json", (json.dumps(values | {"dtype": written, "torch_dtype": written}, indent=2) + "\n").encode())
    return path


def generation_config_in(path: str | os.PathLike, *, prompt_length: int | None = None,
                         max_new_tokens: int | None = None) -> GenerationConfig:
    """How the model in a directory generates by default: generation_config.json, or without one what config.json says of it.

    `prompt_length` is how many tokens of a prompt max_length and min_length count, if the file has them; `max_new_tokens` goes before what
    it says of lengths.

    Raises
    ------
    ValueError   if a file is damaged, lies elsewhere, or says what generation here has not
    """
    who, path = "generation_config_in", Path(path)
    if (path / "generation_config.json").is_file():
        values = read_json(who, file_in(who, path, "generation_config.json"))
    else:
        values = read_json(who, file_in(who, path, "config.json"))
        values = {name: value for name, value in values.items() if (name, value) != ("max_length", _UNSAID)}
    return GenerationConfig.from_hugging_face(values, prompt_length=prompt_length, max_new_tokens=max_new_tokens)


def _carried(who: str, source: Path) -> dict[str, Path]:
    """Name in the copy -> the file, of what belongs to the model."""
    found = {name: file_in(who, source, name) for name in CARRIED if (source / name).is_file()}
    if (source / POOLING / "config.json").is_file():
        found[f"{POOLING}/config.json"] = file_in(who, file_in(who, source, POOLING), "config.json")
    return found


def _countable(who: str, values: Mapping[str, Any], arrays: int) -> None:
    """Before a name is made for each of them: how many layers and experts a config.json claims there are."""
    most = max(_NAMED, arrays)
    layers, experts = ({name: values[name] for name in names if type(values.get(name)) is int} for names in (_LAYERS, _EXPERTS))
    total = sum(layers.values()) * max([1, *experts.values()])
    demand(who, total <= most, f"a config.json of at most {most:,} layers, or experts in all of them", **layers, **experts)


def _kept(who: str, source: Path) -> dict[str, Any]:
    if not (source / "config.json").is_file():
        return {}
    values = read_json(who, file_in(who, source, "config.json"))
    return {name: values[name] for name in _KEPT if values.get(name) is not None} if "model_type" in values else {}


def _told(who: str, path: Path) -> tuple[Family, dict[str, Any]]:
    """What config.json holds, and whose it is."""
    values = read_json(who, file_in(who, path, "config.json"))
    return family_told(who, path, values), values
