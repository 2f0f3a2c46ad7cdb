"""Text written by transformers' Llama with our weights and its own cache: prompts, tokens one by one, and beams by its `generate`."""

from typing import Any

import numpy as np

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._hugging_face import causal
from benchmarks.peers._training import waiting
from benchmarks.workload import Column, Work, peer
from benchmarks.workloads._common import built, shown, tokens
from benchmarks.workloads.generation import MODELS, PROMPT


@on_cuda("transformers", of="prefill", needs="transformers")
@peer("transformers", of="prefill", needs="transformers")
def prefill(*, model: str, prompt: int, batch: int = 1, device: str = "cpu") -> Work:
    """A prompt read into a cache, to the logits behind it."""
    import torch

    reader, ids = _reader(model, batch, prompt, device)

    @torch.inference_mode()
    def run() -> Any:
        return reader(ids, use_cache=True, logits_to_keep=1).logits[:, -1]

    return Work(waiting(run, device), numbers=lambda: shown(logits=run()))


@on_cuda("transformers", of="decode", needs="transformers")
@peer("transformers", of="decode", needs="transformers")
def decode(*, model: str, count: int, batch: int = 1, prompt: int = PROMPT, device: str = "cpu") -> Work:
    """Greedily, a forward a token: what its `generate` does, without what that adds."""
    import torch

    writer, ids = _reader(model, batch, prompt, device)
    with torch.inference_mode():
        begun = writer(ids, use_cache=True, logits_to_keep=1)

    @torch.inference_mode()
    def write() -> Any:
        cache = begun.past_key_values
        if new := cache.get_seq_length() - prompt:
            cache.crop(-new)                               # the tokens of the last time are forgotten
        found, written = begun.logits[:, -1], []
        for _ in range(count):
            written.append(found.argmax(-1))
            found = writer(written[-1][:, None], past_key_values=cache, use_cache=True).logits[:, -1]
        return found, written

    def numbers() -> Any:
        found, written = write()
        return shown(logits=found) | {f"token {i}": np.asarray(ids.cpu(), np.float64) for i, ids in enumerate(written)}

    return Work(waiting(write, device), numbers=numbers)


@on_cuda("transformers", of="beam search", needs="transformers")
@peer("transformers", of="beam search", needs="transformers")
def beam_search(*, model: str, count: int, beams: int = 4, device: str = "cpu") -> Work:
    """A prompt read and the best of the beams; there is no end token, and texts are scored by the mean of log p."""
    import torch

    writer, ids = _reader(model, 1, PROMPT, device)
    options: dict[str, Any] = dict(num_beams=beams, max_new_tokens=count, do_sample=False, early_stopping=False, length_penalty=1.0,
                                   eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_scores=True)
    mask = torch.ones_like(ids)

    @torch.inference_mode()
    def run() -> Any:
        return writer.generate(ids, attention_mask=mask, **options)

    def numbers() -> Any:
        found = run()
        return shown(sequences=found.sequences[:, None, PROMPT:], scores=found.sequences_scores)

    return Work(waiting(run, device), numbers=numbers)


def _reader(model: str, batch: int, prompt: int, device: str) -> tuple[Any, Any]:
    import torch

    config = MODELS[model]
    reader = causal(config, built(Column("numpy"), config).state_dict(), device).eval().requires_grad_(False)
    return reader, torch.from_numpy(tokens(config.vocabulary, batch, prompt)).to(device)
