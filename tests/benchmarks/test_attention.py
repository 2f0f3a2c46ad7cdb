"""The benchmark of attention, at sizes that take no time: its reference is right, and every figure is measured and shown."""

import io
import itertools

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.studies import attention, attention_cuda
from numpy_impl.attention.flash import flash_attention


def test_the_plain_formula_is_what_flash_computes():
    rng = np.random.default_rng(0)
    query, key, value, dy = (rng.standard_normal((2, 70, 8)) for _ in range(4))
    (y, backward), (want, flash_backward) = attention.plain_attention(query, key, value), flash_attention(query, key, value, causal=True)
    for got, expected in zip((y, *backward(dy)), (want, *flash_backward(dy)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_every_table_is_filled(monkeypatch):
    monkeypatch.setattr(attention, "LENGTHS", {16: 2, 40: 1})
    monkeypatch.setattr(attention, "MEMORY_LENGTHS", (256, 512))
    monkeypatch.setattr(attention, "WINDOW_LENGTHS", (32, 64))
    found = attention.cpu(rounds=1, threads=torch.get_num_threads())
    peaks = [row["peak_bytes"] for row in found["memory"]]
    assert peaks[1]["plain"] > 3 * peaks[0]["plain"]
    assert peaks[1]["flash"] < 2.2 * peaks[0]["flash"]
    assert [row["key_value_bytes"] * row["group"] for row in found["grouped"]] == [8 << 20] * len(attention.KEY_HEADS)
    out = Console(file=io.StringIO(), width=160)
    attention.show({"cpu": {"default": found}}, out)
    assert out.file.getvalue().count("T=") == 6


def test_the_figures_of_a_gpu(monkeypatch):
    """On a CPU, with made-up times: which kernels run, which errors they have, and how it is told."""
    monkeypatch.setattr(attention_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(attention_cuda, "WIDTHS", (16,))
    monkeypatch.setattr(attention_cuda, "LENGTHS", (32, 64))
    monkeypatch.setattr(attention_cuda, "TOKENS", 64)
    monkeypatch.setattr(attention_cuda, "ERROR_LENGTH", 48)
    monkeypatch.setattr(attention_cuda, "_seconds", lambda call, rounds: call() is None or 1e-6)
    monkeypatch.setattr(attention_cuda, "matmul_peak", lambda rounds: 100.0)
    counter = itertools.count(start=0, step=1 << 20)
    for name, stub in {
        "get_device_name": lambda: "a GPU", "synchronize": lambda: None, "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None, "memory_allocated": lambda: next(counter), "max_memory_allocated": lambda: next(counter),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    found = attention_cuda.cuda(rounds=1)
    rows = {(row["kernel"], row["T"]): row for row in found["causal"]}
    assert set(rows) == set(itertools.product(attention_cuda.kernels(), (32, 64)))
    for kernel in ("math", "auto", "sdpa flash", "sdpa math"):
        assert rows[kernel, 64]["forward"]["tflops"] == pytest.approx(2 * 16 * 16 * 64 * 64 / 1e-6 / 1e12)
        assert rows[kernel, 32]["peak_bytes"] == 1 << 20
    assert "FlexAttention has no backward" in rows["flex", 32]["error"]
    assert "flash-attn runs on CUDA" in rows["flash_attn", 32]["error"]
    errors = {row["kernel"]: row for row in found["errors"] if "error" in row}
    assert all(row["holds"] for row in errors.values())
    assert max(errors["math"]["of_plain"].values()) == 1
    out = Console(file=io.StringIO(), width=200)
    attention_cuda.show_cuda(found, out)
    assert "matrix products reach 100 TFLOP/s" in out.file.getvalue()
    assert "T=64, sdpa math" in out.file.getvalue()
