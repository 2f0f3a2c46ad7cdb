"""The benchmark of quantization, at a size that takes no time: every figure is measured and shown."""

import io

import pytest
import torch
from rich.console import Console

from benchmarks.studies import quantize


def test_every_row_is_filled(monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(quantize, "SHAPE", (16, 128))
    monkeypatch.setattr(quantize, "STRIP", 4)
    found = quantize.cpu(rounds=2, threads=torch.get_num_threads())
    assert [row.get("same_bytes") for row in found["rows"]] == [True] * 6 + [None]
    assert all(row["speedup"] == row["seconds"]["bitsandbytes"] / row["seconds"]["numpy"] > 0 for row in found["rows"])
    out = Console(file=io.StringIO(), width=160)
    quantize.show({"1 threads": found}, out)
    assert out.file.getvalue().count("dequantize, 4×128") == 2 and "NO" not in out.file.getvalue()
