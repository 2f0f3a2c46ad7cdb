"""The benchmark of writing, at sizes that take no time: every figure is measured and shown, and what is measured writes the same."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.studies import decode, decode_cuda
from byhand.configs.llama import LlamaConfig

TINY = LlamaConfig(vocabulary=11, max_length=64, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_hidden=8, tied=True)


def test_every_table_is_filled(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(decode, "SMALL", TINY)
    monkeypatch.setattr(decode, "WRITTEN", {"tied": (TINY, 3), "untied": (dataclasses.replace(TINY, tied=False), 2)})
    for name, value in dict(BATCHES=(1, 3), BATCH_PROMPT=4, BATCH_TOKENS=2, CONTEXTS=(5, 9)).items():
        monkeypatch.setattr(decode, name, value)
    found = decode.cpu(rounds=1, threads=torch.get_num_threads())
    for row in found["written"]:
        assert row["same"]
        assert list(row["seconds"]) == ["numpy", "torch", "torch, layer by layer", "transformers", "products", "torch products"]
    assert [row["batch"] for row in found["batches"]] == [1, 3] and list(found["contexts"][0]["seconds"]) == list(decode.KINDS)
    out = Console(file=io.StringIO(), width=240)
    decode.show({"cpu": {"default": found}}, out)
    assert "untied, 2 tokens" in out.file.getvalue() and "beams ÷ greedy" in out.file.getvalue()


def test_a_step_with_fixed_room_is_what_the_model_gives():
    model = decode_cuda.Llama(TINY, dtype=torch.float64).requires_grad_(False)
    fixed, ids, step = decode_cuda.fixed_step(model, room=8)
    text = torch.from_numpy(np.random.default_rng(0).integers(0, 11, (1, 6)))
    for t in range(6):
        ids.copy_(text[:, t : t + 1])
        assert torch.allclose(step()[0, 0], model(text)[0, t], rtol=0, atol=1e-12)
    assert fixed.position.item() == 6


def test_the_figures_of_a_gpu(monkeypatch):
    """On a CPU, with made-up times: which ways run, and how it is told."""
    monkeypatch.setattr(decode_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(decode_cuda, "MODELS", {"tiny": dataclasses.replace(TINY, max_length=256)})
    monkeypatch.setattr(decode_cuda, "memory_bandwidth", lambda rounds: 1e9)
    monkeypatch.setattr(decode_cuda, "_seconds", lambda call, rounds: call() is None or 1e-6)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    found = decode_cuda.cuda(rounds=1)
    assert [(row["weights"], row["way"]) for row in found["models"]] == [
        (weights, way) for weights in ("bfloat16", "nf4") for way in ("layer by layer", "flat")]
    out = Console(file=io.StringIO(), width=240)
    decode_cuda.show_cuda(found, out)
    assert "a sum reads 1 GB/s" in out.file.getvalue() and "tiny, nf4, flat" in out.file.getvalue()
