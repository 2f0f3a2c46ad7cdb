"""The benchmark of the mixture of experts, at sizes that take no time: every figure is measured and shown."""

import io

import pytest
import torch
from rich.console import Console

from benchmarks.studies import moe, moe_cuda


def test_every_table_is_filled(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(moe, "SIZES", {"few": moe.Size(12, 4, 2, 8, 16), "one": moe.Size(1, 2, 1, 8, 8)})
    monkeypatch.setattr(moe, "GROWING", (moe.Size(12, 8, 2, 8, 16),))
    found = moe.cpu(rounds=1, threads=torch.get_num_threads())
    for row in found["dispatch"]:
        assert row["same"]
        for what in ("forward", "forward + backward"):
            assert list(row["seconds"][what]) == ["numpy", "dense", "torch loop", "transformers", "products"]
            assert row["ratios"][what]["dense"] == row["seconds"][what]["dense"] / row["seconds"][what]["numpy"]
    assert [len(seconds) for seconds in found["growing"][0]["seconds"].values()] == [len(moe.EXPERTS)] * 2
    out = Console(file=io.StringIO(), width=240)
    moe.show({"cpu": {"default": found}}, out)
    assert out.file.getvalue().count("few: 12 tokens, 2 of 4 experts of 8×16") == 2 and "64 ÷ 8" in out.file.getvalue()
    assert "do not compute the same" not in out.file.getvalue()


def test_the_figures_of_a_gpu(monkeypatch):
    """On a CPU, with made-up times: which ways run, and how it is told."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(moe_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(moe_cuda, "SIZES", {"few": moe.Size(12, 4, 2, 8, 16), "odd": moe.Size(12, 4, 2, 8, 12)})
    monkeypatch.setattr(moe_cuda, "_seconds", lambda call, rounds: call() is None or 1e-6)
    monkeypatch.setattr(moe_cuda, "matmul_peak", lambda rounds: 1.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    rows = {(row["name"], row["kernel"]): row for row in moe_cuda.cuda(rounds=1)["experts"]}
    kernels = ("grouped", "loop", "transformers eager", "transformers grouped")
    assert set(rows) == {(name, kernel) for name in moe_cuda.SIZES for kernel in kernels}
    assert rows["few", "loop"]["forward"]["tflops"] == pytest.approx(2 * 3 * 24 * 8 * 16 / 1e-6 / 1e12)
    assert all(rows["few", kernel]["difference"] < 0.05 for kernel in ("loop", "transformers eager"))
    assert "multiples of 8" in rows["odd", "grouped"]["error"]
    out = Console(file=io.StringIO(), width=240)
    moe_cuda.show_cuda(moe_cuda.cuda(rounds=1), out)
    assert "matrix products reach 1 TFLOP/s" in out.file.getvalue() and "few: 12 tokens" in out.file.getvalue()
