"""`byhand generate`, `byhand merge` and `byhand quantize`: a base with an adapter and without, both in one, a base in 4 bits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from byhand import checkpoint
from byhand.checks import demand, positive
from byhand.commands.finetune_backends import numpy_base, quantization
from byhand.continuation import continue_greedily
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base, Quantization, open_base, save_quantized
from byhand.finetuning.methods import adapt
from byhand.hugging_face.adapter import load_adapter
from byhand.hugging_face.directory import save_hugging_face
from byhand.model_source import as_bytes
from byhand.run_config import resolve

_OUT = Console(highlight=False, soft_wrap=True)


def generate(where: str | None, *, adapter: str | None, prompt: str, count: int, seed: int) -> None:
    """Print how the model continues the prompt, without the adapter and with it."""
    demand("generate", bool(prompt), "a prompt of at least one byte", prompt=prompt)
    tuning = _run_of(adapter)
    where = where or (None if tuning is None else tuning.base)
    demand("generate", where is not None, "a model, or the directory of a `byhand finetune` as the adapter", model=where)
    base = open_base(str(where))
    model = _model(base, tuning, seed)
    _say(base, model, prompt, count, base.title)
    if adapter is not None:
        _say(base, with_adapter(model, base, adapter, tuning), prompt, count, f"with {adapter}")


def merge(where: str, *, adapter: str, out: str) -> None:
    """Write the base with the adapter added into its weights, as a directory that `byhand` and transformers load.

    Raises
    ------
    ValueError   if the two do not fit, or `out` is no new directory
    """
    from numpy_impl.finetune.manager import merge_and_unload

    target = Path(out)
    demand("merge", not target.exists() or not any(target.iterdir()), "a directory that is new or empty", out=out)
    base = open_base(where)
    tuning = _run_of(adapter)
    model = _model(base, tuning, 0)
    model = with_adapter(model, base, adapter, tuning)
    ids = (np.arange(32) % min(256, base.config.vocabulary))[None]
    before = model(ids)
    merged = merge_and_unload(model)
    demand("merge", bool(merged), "an adapter of LoRA, which can be added into weights", adapter=adapter)
    apart = float(np.abs(model(ids) - before).max() / max(1.0, np.abs(before).max()))
    save_hugging_face(target, base.config, model.state_dict())
    if base.path is not None and (base.path / "tokenizer.json").is_file():
        shutil.copy2(base.path / "tokenizer.json", target)
    _OUT.print(f"{out}: {base.title} with {len(merged)} layers merged; its logits differ from the adapter's by {apart:.1e} of their scale")


def quantize(where: str, *, out: str, quantized: Quantization, seed: int) -> None:
    """Write the base with its matrices in 4 bits, for `byhand finetune --base` and `byhand generate`.

    Raises
    ------
    ValueError   if it is quantized already, or `out` holds one
    """
    base = open_base(where)
    demand("quantize", base.quantized is None, "a base that is not quantized", base=base.title)
    demand("quantize", not Path(out).exists() or not any(Path(out).iterdir()), "a directory that is new or empty", out=out)
    positive("quantize", block=quantized.block)
    model = numpy_base(base, quantized, rng=np.random.default_rng(seed))
    state = model.state_dict()
    save_quantized(out, base, quantized, state)
    full, small = 4 * base.config.parameters, sum(array.nbytes for array in state.values())
    _OUT.print(f"{out}: {base.title} in {small:,} bytes, {full / small:.2f} times smaller than in float32 ({full:,})")


def with_adapter(model: Any, base: Base, adapter: str, tuning: FinetuneConfig | None) -> Any:
    """The model with the adapter of that directory: LoRA's files, peft's or ours, or a run of `byhand finetune`.

    Raises
    ------
    ValueError   if there is none, it is damaged, or for another base
    """
    from numpy_impl.finetune.manager import apply_lora, load_adapter_state

    if tuning is None:
        config, state = load_adapter(adapter, base.config)
        apply_lora(model, config)
        load_adapter_state(model, state)
        return model
    latest = checkpoint.latest(Path(adapter) / "checkpoints")
    demand("generate", latest is not None, "a run with a checkpoint", adapter=adapter)
    assert latest is not None
    arrays = checkpoint.load(latest).arrays
    trained = arrays.get("numpy-trained", arrays.get("torch-trained", {}))
    model, _ = adapt("numpy", model, tuning, np.random.default_rng(tuning.seed))
    own = model.parameters()
    demand("generate", own.keys() == trained.keys(), "a run on this base", adapter=adapter)
    for name, array in own.items():
        array[...] = trained[name]
    return model


def _model(base: Base, tuning: FinetuneConfig | None, seed: int) -> Any:
    """The base as the run had it: quantized or not, and from its seed where the weights are random."""
    if tuning is None:
        return numpy_base(base, base.quantized, rng=np.random.default_rng(seed))
    return numpy_base(base, quantization(tuning, base), rng=np.random.default_rng(tuning.seed))


def _run_of(adapter: str | None) -> FinetuneConfig | None:
    """The configuration of the run, where the adapter is named by the directory of one."""
    if adapter is None or not (Path(adapter) / "about.json").is_file():
        return None
    return resolve(FinetuneConfig, Path(adapter) / "config.json")


def _say(base: Base, model: Any, prompt: str, count: int, title: str) -> None:
    _OUT.print(f"\n{title}:", style="bold", markup=False)
    if base.tokenize is as_bytes:
        found = continue_greedily(lambda ids: model(ids)[0, -1], prompt.encode(), count=count, context=base.config.max_length)
        text = found.text
    else:
        ids = list(base.tokenize(prompt)[0])
        given = len(ids)
        for _ in range(count):
            ids.append(int(model(np.array([ids[-base.config.max_length :]]))[0, -1].argmax()))
        text = " ".join(map(str, ids[given:])) if base.path is None else _decode(base.path, ids[given:])
    _OUT.print("  | " + (prompt + text).replace("\n", "\n  | "), style="cyan", markup=False)


def _decode(path: Path, ids: list[int]) -> str:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path / "tokenizer.json")).decode(ids)
