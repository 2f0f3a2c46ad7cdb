"""LoRA adapters as peft's two files, adapter_config.json and adapter_model.safetensors, read and written."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from byhand.checks import choice
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face.adapter_maps import adapter_from_peft, adapter_to_peft
from byhand.hugging_face.adapter_places import Config
from byhand.hugging_face.on_disk import arrays_in
from byhand.manifest import MANIFEST, read_manifest, replace_files, settled

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(path: str | os.PathLike, *, config: LoRAConfig, model_config: Config, state: Mapping[str, NDArray],
                 base_name: str | None = None, base: Mapping[str, NDArray] | None = None,
                 dtype: Literal["own", "bfloat16"] = "own") -> Path:
    """Write an adapter into the directory `path`, for `load_adapter` and for peft's ``PeftModel.from_pretrained``.

    The files change together, held by a manifest of their digests: whenever the writing is interrupted, `load_adapter` finds the old
    adapter or the new one. What else is in the directory stays.

    Parameters
    ----------
    path           the directory, made if there is none
    config         of the adapter. peft is not told of a start that changes the base (PiSSA, OLoRA, LoftQ): it must be given that base
    model_config   of the model it was trained on
    state          {"blocks.0.attn.q_proj.lora_A": (R, I), "….lora_B": (O, R), "….magnitude": (O,)} and, where biases train,
                   {"blocks.0.attn.q_proj.bias": (O,)}
    base_name      the base's name or directory, for peft's users
    base           the base's own arrays, needed only where magnitudes or biases are saved and just one or two of GPT-2's query, key and
                   value, which are one module there, have an adapter
    dtype          of the file: the arrays' own, or bfloat16, to which they are rounded

    Raises
    ------
    ValueError   if a name or a shape is not the config's, or peft has no such adapter; then nothing has been written
    """
    values, arrays = adapter_to_peft(config, model_config, state, base_name=base_name, base=base)
    path = Path(path)
    choice("save_adapter", ("own", "bfloat16"), dtype=dtype)
    weights = _in_bfloat16(arrays) if dtype == "bfloat16" else safetensors.numpy.save(arrays, {"format": "pt"})
    content = {_CONFIG: (json.dumps(values, indent=2) + "\n").encode(), _WEIGHTS: weights}
    try:
        path.mkdir(parents=True, exist_ok=True)
        replace_files(path, content, lora=dataclasses.asdict(config))
    except OSError as error:
        raise ValueError(f"save_adapter needs a directory it can write to; {error.filename or path}: {error.strerror}") from error
    return path


def load_adapter(path: str | os.PathLike, model_config: Config) -> tuple[LoRAConfig, dict[str, NDArray]]:
    """The config and the arrays of the adapter in a directory, peft's or our own, for a model of `model_config`.

    Returns
    -------
    config : LoRAConfig   with start "kaiming" or "gaussian": the base that a saved adapter belongs to has been made already
    state                 as `save_adapter` takes it, half precision as float32. Copies of embeddings that peft saves beside their
                          adapters are left behind

    Raises
    ------
    ValueError   if a file is missing or damaged, or not what the manifest beside it tells of; if the adapter is for another base; or if
                 it has what ours have not, which is named
    """
    who, path = "load_adapter", Path(path)
    manifest = read_manifest(who, path) if (path / MANIFEST).exists() else {"files": {}}
    try:
        text, weights = (settled(who, path / name, manifest["files"].get(name)).read_bytes() for name in (_CONFIG, _WEIGHTS))
    except OSError as error:
        raise ValueError(f"{who} needs a file it can read; {error.filename}: {error.strerror}") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who} needs JSON in {path / _CONFIG}; {error}") from error
    arrays = arrays_in(weights, who=who, file=path / _WEIGHTS)
    arrays = {name: array.astype("float32") if array.dtype == "float16" else array for name, array in arrays.items()}
    saved_as = LoRAConfig.from_dict(manifest["lora"]) if "lora" in manifest else None
    return adapter_from_peft(values, arrays, model_config, saved_as=saved_as)


def _in_bfloat16(arrays: Mapping[str, NDArray]) -> bytes:
    """A safetensors file of these arrays rounded to bfloat16, for which NumPy, and so safetensors.numpy, has no name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    pieces, end = [], 0
    for name, array in arrays.items():
        bits = np.ascontiguousarray(array, "<f4").view("<u4")
        upper = ((bits + (bits >> 16 & 1) + 0x7FFF) >> 16).astype("<u2")          # to nearest, ties to even
        pieces.append(np.where(np.isnan(array), np.uint16(0x7FC0), upper).astype("<u2").tobytes())
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [end, end + len(pieces[-1])]}
        end += len(pieces[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                                               # the data begins at a multiple of 8
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])
