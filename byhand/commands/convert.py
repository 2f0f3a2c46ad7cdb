"""`byhand convert`: a model from wherever it lies, as a directory of Hugging Face's hub."""

import math
import os
import shutil
from pathlib import Path

from rich.console import Console

from byhand.checks import choice, demand, fail, size
from byhand.commands.adapters import plain_state
from byhand.commands.finetune_backends import numpy_base
from byhand.finetuning.base import open_base
from byhand.finetuning.methods import parse_budget
from byhand.hugging_face.combined import stored_as
from byhand.hugging_face.directory import save_hugging_face
from byhand.hugging_face.families import family_of
from byhand.model_source import Weights, build, open_weights

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
    demand(who, not target.exists() or (target.is_dir() and not any(target.iterdir())), "an OUT that is new or an empty directory", out=out)
    size(who, at_least=0, seed=seed)
    if dtype is not None:
        choice(who, _DTYPES, dtype=dtype)
    most = None if max_shard is None else _bytes(who, max_shard)
    found = _weights(who, source, seed)
    assert found.state is not None
    dtypes = {stored_as(array) for array in found.state.values()}
    dtype = dtype or (dtypes.pop() if len(dtypes) == 1 and dtypes <= set(_DTYPES) else "float32")
    whole = target.with_name(f".{target.name}.part")
    shutil.rmtree(whole, ignore_errors=True)
    try:
        save_hugging_face(whole, found.config, found.state, kind=found.kind, dtype=dtype, max_shard=most, source=found.path)
        if target.exists():
            target.rmdir()                                # which is empty
        os.replace(whole, target)
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
    if path.is_dir() and any(path.glob("step-*")):
        base = open_base(source)
        model = numpy_base(base, base.quantized)
        return Weights(base.config, type(model).__name__, plain_state(model), base.title, base.tokenize, path)
    found = open_weights(source)
    family_of(who, found.config).write_config(found.config, found.kind)
    if found.state is not None:
        return found
    return found._replace(state=build(found, seed=seed).state_dict())


def _bytes(who: str, text: str) -> int:
    needs = "max_shard as a number of bytes, 2GB say"
    kind, value = parse_budget(text, who=who, needs=needs)
    if kind != "bytes" or value < 1:
        fail(who, needs, repr(text))
    return int(value)
