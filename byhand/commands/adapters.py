"""`byhand merge`, `byhand export` and `byhand quantize`: a base and its adapter in one, a base as it is, a base in 4 bits."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from byhand import checkpoint
from byhand.checks import demand, fail, same_names, same_shape, size
from byhand.commands.finetune_backends import digest, numpy_base, quantization
from byhand.finetune_config import FinetuneConfig, config_of_run
from byhand.finetuning.base import Base, Quantization, open_base, save_quantized
from byhand.finetuning.expert_files import ABOUT, ExpertFiles
from byhand.finetuning.methods import adapt, parse_budget
from byhand.hugging_face.adapter import load_adapter
from byhand.hugging_face.directory import save_hugging_face
from byhand.run_directory import RunDirectory

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_OUT = Console(highlight=False, soft_wrap=True)


def merge(where: str | None, *, adapter: str, out: str) -> None:
    """Write the base with the adapter added into its weights, as a directory that `byhand` and transformers load.

    Raises
    ------
    ValueError   if the two do not fit, the adapter is of a kind that no weight can take in, or `out` is no new directory
    """
    from numpy_impl.finetune.manager import merge_and_unload

    target = _new("merge", out)
    tuning = _run_of("merge", adapter)
    mergeable = _experts_of("merge", adapter) is None and (tuning is None or tuning.method in ("lora", "full"))
    demand("merge", mergeable, "LoRA, which can be added into weights", method="mixlora" if tuning is None else tuning.method)
    where = where or (None if tuning is None else tuning.base)
    if where is None:
        fail("merge", "a model, or the directory of a `byhand finetune` as the adapter", "neither")
    base = open_base(str(where))
    model = with_adapter("merge", _model(base, tuning, 0), base, adapter, tuning)
    ids = (np.arange(min(32, base.config.max_length)) % min(256, base.config.vocabulary))[None]
    before = model(ids)
    merged = [] if tuning is not None and tuning.method == "full" else merge_and_unload(model)
    apart = float(np.abs(model(ids) - before).max() / max(1.0, np.abs(before).max()))
    _write_whole(target, base, plain_state(model))
    what = f"{len(merged)} layers merged" if merged else "every weight as it was trained"
    _OUT.print(f"{out}: {base.title}, {what}; its logits differ from the adapter's by {apart:.1e} of their scale")


def export(where: str, *, out: str, seed: int) -> None:
    """Write a base as Hugging Face's hub holds a model, one in 4 bits in full: what peft needs to load an adapter on.

    Raises
    ------
    ValueError   if there is no such base, or `out` is no new directory
    """
    size("export", at_least=0, seed=seed)
    target = _new("export", out)
    base = open_base(where)
    model = numpy_base(base, base.quantized, rng=np.random.default_rng(seed))
    _write_whole(target, base, plain_state(model))
    _OUT.print(f"{out}: {base.title}, {base.config.parameters:,} parameters")


def _write_whole(target: Path, base: Base, state: dict[str, np.ndarray]) -> None:
    """The model's directory, complete or not there."""
    whole = Path(f"{target}.part")
    shutil.rmtree(whole, ignore_errors=True)
    save_hugging_face(whole, base.config, state)
    for name in _TOKENIZER:
        if base.path is not None and (base.path / name).is_file():
            shutil.copy2(base.path / name, whole)
    if target.exists():
        target.rmdir()                                    # which is empty
    os.replace(whole, target)


def plain_state(model: Any) -> dict[str, np.ndarray]:
    """The weights of a model by name, those in 4 bits in full."""
    state = {}
    for name, array in model.state_dict().items():
        stem, _, last = name.rpartition(".")
        if last == "codes":
            state[f"{stem}.weight"] = dict(model.modules())[stem].weight
        elif not last.startswith("absmax"):
            state[name] = array
    return state


def quantize(where: str, *, out: str, quantized: Quantization, seed: int) -> None:
    """Write the base with its matrices in 4 bits, for `byhand finetune --base` and `byhand generate`.

    Raises
    ------
    ValueError   if it is quantized already, or `out` holds one
    """
    base = open_base(where)
    demand("quantize", base.quantized is None, "a base that is not quantized", base=base.title)
    _new("quantize", out)
    size("quantize", block=quantized.block)
    size("quantize", at_least=0, seed=seed)
    model = numpy_base(base, quantized, rng=np.random.default_rng(seed))
    state = model.state_dict()
    save_quantized(out, base, quantized, state)
    full, small = 4 * base.config.parameters, sum(array.nbytes for array in state.values())
    _OUT.print(f"{out}: {base.title} in {small:,} bytes, {full / small:.2f} times smaller than in float32 ({full:,})")


def with_adapter(who: str, model: Any, base: Base, adapter: str, tuning: FinetuneConfig | None, experts: ExpertFiles | None = None) -> Any:
    """The model with the adapter of that directory: LoRA's files, peft's or ours, MixLoRA's `experts`, or a run of `byhand finetune`.

    Raises
    ------
    ValueError   if there is none, it is damaged, or for another base
    """
    from numpy_impl.finetune.manager import apply_lora, load_adapter_state

    if tuning is None and experts is not None:
        experts.attach(model)
        return model
    if tuning is None:
        config, state = load_adapter(adapter, base.config)
        apply_lora(model, config)
        load_adapter_state(model, state)
        return model
    run = Path(adapter)
    latest = checkpoint.latest(run / "checkpoints")
    if latest is None:
        fail(who, "a run with a checkpoint", f"{adapter}, which has none yet: byhand finetune --resume {adapter}")
    assert latest is not None
    about = RunDirectory.read(run / "about.json")
    found = digest(model.state_dict(), {})
    demand(who, about.get("base_sha256", found) == found, f"the base that {adapter} was trained on, {about.get('base')}", base=base.title)
    if experts is not None:
        experts.attach(model)
        return model
    arrays = checkpoint.load(latest).arrays
    trained = arrays.get("numpy-trained", arrays.get("torch-trained", {}))
    model, _ = adapt("numpy", model, tuning, np.random.default_rng(tuning.seed))
    own = model.parameters()
    same_names(who, own, **{str(latest): trained})
    for name, array in own.items():
        same_shape(who, array.shape, **{f"{latest}, {name}": trained[name]})
    for name, array in own.items():
        array[...] = trained[name]
    return model


def _model(base: Base, tuning: FinetuneConfig | None, seed: int) -> Any:
    """The base as the run had it: quantized or not, in its precision, and from its seed where the weights are random."""
    if tuning is None:
        return numpy_base(base, base.quantized, rng=np.random.default_rng(seed))
    return numpy_base(base, quantization(tuning, base), dtype=tuning.dtype, rng=np.random.default_rng(tuning.seed))


def _run_of(who: str, adapter: str | None) -> FinetuneConfig | None:
    """The configuration of the run, where the adapter is named by the directory of one."""
    if adapter is None or any((Path(adapter) / name).is_file() for name in ("adapter_config.json", ABOUT)):
        return None
    demand(who, Path(adapter).is_dir(), "the directory of an adapter, or of a `byhand finetune`", adapter=adapter)
    return config_of_run(adapter, who=who)


def _experts_of(who: str, adapter: str | None, memory: str | None = None) -> ExpertFiles | None:
    """MixLoRA's experts in that directory, or in that of a run that has ended; None: it is no such adapter."""
    amount = None
    if memory is not None:
        needs = "expert_memory as a number of bytes, 64MB say"
        kind, value = parse_budget(memory, who=who, needs=needs)
        demand(who, kind == "bytes", needs, expert_memory=memory)
        amount = int(value)
    for directory in () if adapter is None else (Path(adapter), Path(adapter) / "adapter"):
        if (directory / ABOUT).is_file():
            return ExpertFiles(directory, memory=amount)
    demand(who, memory is None, "an adapter of MixLoRA, with its files, for expert_memory", adapter=adapter)
    return None


def _new(who: str, out: str) -> Path:
    """The directory to write, which must not hold anything."""
    path = Path(out)
    demand(who, not path.exists() or (path.is_dir() and not any(path.iterdir())), "a directory that is new or empty", out=out)
    return path
