"""Writing text with a cache of keys and values: a prompt read at once, tokens written one after the other, and four beams.

PyTorch writes a token either layer by layer or by its flat `llama_step`. Both are tried when the work is prepared, and the faster one is
measured.
"""

import copy
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import built, given, implementation, multiplied, shown, tokens
from byhand.configs.generation import GenerationConfig
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig

MODELS = {
    "288 × 6": LlamaConfig(vocabulary=32000, max_length=2048, d_model=288, n_layers=6, n_heads=6, d_hidden=768, tied=True),
    "128 × 2": LlamaConfig(vocabulary=4096, max_length=1024, d_model=128, n_layers=2, n_heads=2, d_hidden=384, tied=True),
    "SmolLM2-135M": LLAMA_PRESETS["smollm2-135m"],
}
SMALL: dict[str, Any] = dict(model="128 × 2")
MIDDLE: dict[str, Any] = dict(model="288 × 6")
SMOL: dict[str, Any] = dict(model="SmolLM2-135M")
MIDDLE_PROMPT, SMOL_PROMPT = {"288 × 6, 256 tokens": MIDDLE | dict(prompt=256)}, {"SmolLM2-135M, 64 tokens": SMOL | dict(prompt=64)}
PROMPT = 16


@workload("prefill", {"small": {"128 × 2, 64 tokens": SMALL | dict(prompt=64)}, "medium": MIDDLE_PROMPT, "large": MIDDLE_PROMPT},
          threads=(1, 2), compiled=True)
@workload("prefill", {"medium": SMOL_PROMPT, "large": SMOL_PROMPT}, threads=(1, 2))
def prefill(column: Column, *, model: str, prompt: int, batch: int = 1) -> Work:
    """A prompt read into an empty cache, to the logits behind it."""
    config, reader = MODELS[model], _model(column, model)
    ids = given(column, tokens(config.vocabulary, batch, prompt))
    run = _inference(column, column.compile(lambda: reader.extend(ids, reader.new_cache())))
    trunk, head = multiplied(config) - config.vocabulary * config.d_model, config.vocabulary * config.d_model
    attention = 2 * prompt * config.n_layers * config.d_model               # 2 products, of each one half
    flops = batch * (prompt * (2 * trunk + attention) + 2 * head)                               # only the last token goes to the head
    return Work(run, numbers=lambda: shown(logits=run()), flops=flops, bytes=4 * multiplied(config), unit="tokens", units=batch * prompt)


@workload("decode", {
    "small": {"128 × 2, 16 tokens": SMALL | dict(count=16)},
    "medium": {"288 × 6, 32 tokens": MIDDLE | dict(count=32), "SmolLM2-135M, 4 tokens": SMOL | dict(count=4)},
    "large": {"288 × 6, 128 tokens": MIDDLE | dict(count=128), "SmolLM2-135M, 32 tokens": SMOL | dict(count=32)},
}, threads=(1, 2))
def decode(column: Column, *, model: str, count: int, batch: int = 1, prompt: int = PROMPT) -> Work:
    """So many tokens written greedily behind a prompt that has been read."""
    config, writer = MODELS[model], _model(column, model)
    ids = given(column, tokens(config.vocabulary, batch, prompt))

    def writing(count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        cache = writer.new_cache()
        logits = writer.extend(ids, cache)
        lengths = given(column, np.full(batch, prompt))

        def run() -> Any:
            cache.crop(lengths)                                # the tokens of the last time are forgotten
            found, written = logits, []
            for _ in range(count):
                written.append(found.argmax(-1))
                found = writer.extend(written[-1][:, None], cache)
            return found, written

        def numbers() -> Any:
            found, written = run()
            return shown(logits=found) | {f"token {i}": shown(ids=ids)["ids"] for i, ids in enumerate(written)}

        return _inference(column, run), _inference(column, numbers)

    if column.side == "torch":
        def seconds(flat: bool) -> float:
            writer._flat = lambda: flat
            return _seconds(writing(2)[0])

        faster = seconds(True) < seconds(False)
        writer._flat = lambda: faster
    run, numbers = writing(count)
    weights = multiplied(config)
    return Work(run, numbers=numbers, flops=2 * weights * count * batch, bytes=4 * weights * count, unit="tokens", units=count * batch)


@workload("decode by batch", {"small": (1, 8), "medium": (1, 4, 16), "large": (1, 4, 16, 64)}, axis="batch")
def by_batch(column: Column, *, batch: int) -> Work:
    """Texts that are written together, 8 tokens of each: tokens a second of all."""
    return decode(column, model="288 × 6", count=8, batch=batch)


@workload("beam search", {"small": {"128 × 2, 4 beams, 8 tokens": SMALL | dict(count=8)},
                          "medium": {"288 × 6, 4 beams, 16 tokens": MIDDLE | dict(count=16)},
                          "large": {"SmolLM2-135M, 4 beams, 32 tokens": SMOL | dict(count=32)}}, threads=(1, 2))
def beam_search(column: Column, *, model: str, count: int, beams: int = 4) -> Work:
    """A prompt read and the likeliest continuation that four beams find."""
    config, writer = MODELS[model], _model(column, model)
    ids = given(column, tokens(config.vocabulary, 1, PROMPT))
    search = implementation(column.side, "decode.beam_search.beam_search")
    options = GenerationConfig(max_new_tokens=count, beams=beams)
    run = _inference(column, lambda: search(writer, ids, config=options))
    weights = multiplied(config)
    return Work(run, numbers=lambda: shown(**{name: getattr(run(), name) for name in ("sequences", "scores")}),
                flops=2 * weights * (PROMPT + beams * count), bytes=4 * weights * (count + 1), unit="tokens", units=count)


def _model(column: Column, model: str) -> Any:
    """A model of the column's own, with the arrays that other columns have too: nothing changes them."""
    return copy.copy(_weights(column.side, column.device, model))


@functools.lru_cache(maxsize=4)
def _weights(side: str, device: str, model: str) -> Any:
    if side == "numpy":
        return built(Column("numpy"), MODELS[model])
    return built(Column("torch" if device == "cpu" else device), MODELS[model], plain=_weights("numpy", "cpu", model)).requires_grad_(False)


def _inference(column: Column, call: Callable[[], Any]) -> Callable[[], Any]:
    if column.side == "numpy":
        return call
    import torch

    return torch.inference_mode()(call)


def _seconds(run: Callable[[], Any]) -> float:
    """Median of a few runs, after one that does not count."""
    times = []
    for _ in range(4):
        started = time.perf_counter()
        float(run()[0].flatten()[0])                           # waits for a GPU
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
