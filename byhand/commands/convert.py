"""`byhand convert`: a model from wherever it lies, as a directory of Hugging Face's hub."""

import math
import os
import re
import shutil
from pathlib import Path

from rich.console import Console

from byhand.checks import choice, demand, fail, size
from byhand.commands.adapters import plain_state
from byhand.commands.finetune_backends import numpy_base
from byhand.finetuning.base import open_base
from byhand.hugging_face.combined import stored_as
from byhand.hugging_face.directory import save_hugging_face
from byhand.hugging_face.families import family_of
from byhand.model_source import Weights, build, open_weights

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_DTYPES = ("float32", "float16", "bfloat16")


def convert(source: str, *, out: str, dtype: str | None, max_shard: str | None, seed: int) -> None:
    """Write the model that `source` names into the directory `out`, whole or not at all; what lies in files stays there until it is
    written, so that no more than its largest array is in memory.

    Raises
    ------
    ValueError   if there is no such model, transformers has none like it, or `out` is no new or empty directory
    """
    who = "convert"
    target = Path(out).absolute()
    try:
        free = not os.path.lexists(target) or (target.is_dir() and not target.is_symlink() and not any(target.iterdir()))
    except OSError as error:
        raise ValueError(f"{who} needs an OUT that it can write; {out[:80]}: {error.strerror}") from error
    demand(who, free, "an OUT that is new or an empty directory", out=out)
    size(who, at_least=0, seed=seed)
    if dtype is not None:
        choice(who, _DTYPES, dtype=dtype)
    most = None if max_shard is None else _bytes(who, max_shard)
    found = _weights(who, source, seed)
    assert found.state is not None
    dtypes = {stored_as(array) for array in found.state.values()}
    dtype = dtype or (dtypes.pop() if len(dtypes) == 1 and dtypes <= set(_DTYPES) else "float32")
    whole = target.with_name(f".convert-{os.getpid()}.part")             # no one else's
    try:
        save_hugging_face(whole, found.config, found.state, kind=found.kind, dtype=dtype, max_shard=most, source=found.path)
        if target.exists():
            target.rmdir()                                # which is empty
        os.replace(whole, target)
    except OSError as error:
        shutil.rmtree(whole, ignore_errors=True)
        raise ValueError(f"{who} needs an OUT that it can write; {str(error.filename or out)[:80]}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(whole, ignore_errors=True)
        raise
    count = sum(math.prod(array.shape) for array in found.state.values())
    files = sorted(target.glob("*.safetensors"))
    Console(highlight=False, soft_wrap=True).print(
        f"{out}: {found.title}, {count:,} parameters in {dtype}, {len(files)} {'file' if len(files) == 1 else 'files'}, "
        f"{sum(file.stat().st_size for file in files):,} bytes", markup=False)


def _weights(who: str, source: str, seed: int) -> Weights:
    """What the source names: as open_model has it or, of one that `byhand quantize` wrote, in full. What transformers has not is refused
    before anything is built."""
    path = Path(source)
    if os.path.isdir(path) and any(path.glob("step-*")):
        base = open_base(source)
        model = numpy_base(base, base.quantized)
        return Weights(base.config, type(model).__name__, plain_state(model), base.title, base.tokenize, path)
    found = open_weights(source)
    family_of(who, found.config).write_config(found.config, found.kind)
    if found.state is not None:
        return found
    return found._replace(state=build(found, seed=seed).state_dict())


def _bytes(who: str, text: str) -> int:
    """A number of bytes, 2GB say."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMG]?B|[KMG]iB)\s*", text)
    count = 0 if found is None else int(float(found[1]) * _UNITS[found[2].removesuffix("B").upper()])
    if count < 1:
        fail(who, "max_shard as bytes with their unit, B, KB, MB or GB: 2GB say", repr(text))
    return count
