"""The table of kernels in docs/attention.md, cell by cell: "no" is refused by name, "yes" agrees with the plain formula in float64."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
import torch

from byhand.noise import Noise
from torch_impl.attention import _kernels
from torch_impl.attention.flash import flash_attention
from torch_impl.attention.flash_varlen import flash_attention_varlen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attention.md"
NAMES = ("math", "sdpa", "flex", "flash_attn")


def table():
    """{what is asked: {kernel: cell}}."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.search(r"\| asked of it \|.*?\n\|---.*?\n(.*?)\n\n", text, re.DOTALL)[1].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {asked: dict(zip(NAMES, marks, strict=True)) for asked, *marks in cells}


def call(kernel, *, t=6, s=6, width=16, value_width=None, dtype=torch.float32, gradients=False, cu_seqlens_q=None, device="cpu", **options):
    """(y, gradients or nothing) of a small example."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, t, width), (2, 3, s, width), (2, 3, s, value_width or width))
    leaves = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_(gradients) for shape in shapes]
    if "alibi_slopes" in options:
        options["alibi_slopes"] = torch.tensor([0.5, 0.25, 0.0], device=device)
    if cu_seqlens_q is None:
        y = flash_attention(*leaves, **options, kernel=kernel)
    else:
        y = flash_attention_varlen(*leaves, cu_seqlens_q=torch.tensor(cu_seqlens_q, device=device), **options, kernel=kernel)
    return y, *(torch.autograd.grad(y, leaves, torch.ones_like(y)) if gradients else ())


HALF = dict(dtype=torch.float16)
ASKED = {
    "arrays on a CPU": HALF,
    "gradients on a CPU": dict(HALF, gradients=True),
    "arrays on a CUDA device": dict(HALF, device="cuda", gradients=True),
    "float16": HALF,
    "bfloat16": dict(dtype=torch.bfloat16),
    "float32": dict(),
    "float64": dict(dtype=torch.float64),
    "head width 8": dict(HALF, width=8),
    "head width 256": dict(HALF, width=256),
    "head width 320": dict(HALF, width=320),
    "value width ≠ key width": dict(HALF, value_width=32),
    "causal, T ≠ S": dict(HALF, t=4, s=9, causal=True),
    "window": dict(HALF, window=(2, 1)),
    "ALiBi slopes": dict(HALF, alibi_slopes=True),
    "soft cap": dict(HALF, soft_cap=2.0),
    "soft cap and slopes in a window": dict(HALF, soft_cap=2.0, alibi_slopes=True, window=(3, 0)),
    "dropout from a `Noise`": dict(HALF, dropout=0.5, noise=Noise(seed=1)),
    "scale ≤ 0": dict(HALF, scale=-0.3),
    "packed documents": dict(HALF, cu_seqlens_q=(0, 2, 2, 5, 6)),
    "no queries or no keys": dict(HALF, s=0),
}
CELLS = [(asked, kernel, mark) for asked, marks in table().items() for kernel, mark in marks.items()]


def agrees(results, options):
    """Each of (y, dquery, dkey, dvalue) with the plain formula in float64."""
    exact = call("math", **options | dict(dtype=torch.float64))
    allowed = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5, torch.float64: 1e-12}[results[0].dtype]
    for got, want in zip(results, exact, strict=True):
        size = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * size)


def test_the_table_and_this_file_ask_the_same():
    assert list(table()) == list(ASKED)


@pytest.mark.parametrize(("asked", "kernel", "mark"), CELLS, ids=[f"{asked}-{kernel}" for asked, kernel, _ in CELLS])
def test_the_table_is_true(asked, kernel, mark):
    options = ASKED[asked]
    if options.get("device") == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    elsewhere = "flash-attn runs on CUDA"                          # what an option does not lack, but this test's arrays
    if mark == "no":
        with pytest.raises(ValueError, match=f"needs another kernel than '{kernel}'") as refused:
            call(kernel, **options)
        assert (elsewhere in str(refused.value)) == (kernel == "flash_attn" and "CPU" in asked)
    elif kernel == "flash_attn" and options.get("device") != "cuda":
        with pytest.raises(ValueError, match=elsewhere):
            call(kernel, **options)
    else:
        agrees(call(kernel, **options), options)


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)])
def test_any_leading_axes(kernel, lead):
    x = torch.randn(*lead, 5, 16)
    y = flash_attention(x, x, x, window=(1, 1), kernel=kernel)
    torch.testing.assert_close(flash_attention(x, x, x, window=(1, 1), kernel="flex"), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("options", "kernel"), [
    (dict(), "sdpa"), (dict(causal=True, window=(3, None)), "sdpa"), (dict(soft_cap=1.0), "math"),
    (dict(dropout=0.5, noise=Noise(seed=2)), "math"), (dict(dropout=0.5), "sdpa"), (dict(dtype=torch.float64), "math"),
    (dict(cu_seqlens_q=(0, 1, 6)), "sdpa"),
])
def test_auto_takes_the_best_that_can(options, kernel):
    assert torch.equal(call("auto", **options)[0], call(kernel, **options)[0])
    chosen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_kernels, "scaled_dot_product", lambda *a, kernel, **o: chosen.append(kernel) or torch.zeros(1))
        call("auto", **options)
    assert chosen == [kernel]


def test_flex_serves_leaves_on_a_cpu_where_no_gradient_is_wanted():
    x = torch.randn(1, 5, 16, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(flash_attention(x, x, x, kernel="flex"), flash_attention(x, x, x, kernel="math"), rtol=1e-5, atol=1e-6)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="did you mean 'flash_attn'"):
        call("flash_atn")


@pytest.mark.parametrize(("version", "found"), [(None, False), ("2.5.8", False), ("2.6.3", True), ("3.0.0b1", True), ("odd", False)])
def test_flash_attn_is_looked_for_as_a_distribution(version, found, tmp_path, monkeypatch):
    # a folder of that name which is no distribution must not even be imported
    package = tmp_path / "flash_attn"
    package.mkdir()
    (package / "__init__.py").write_text("def flash_attn_func():\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    if version is not None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    _kernels.flash_attn.cache_clear()
    try:
        assert (_kernels.flash_attn("flash_attn_func") is not None) == found
        assert ("flash_attn" in sys.modules) == found
    finally:
        _kernels.flash_attn.cache_clear()
        sys.modules.pop("flash_attn", None)


@pytest.mark.gpu
@pytest.mark.parametrize("asked", [asked for asked in ASKED if "CPU" not in asked])
@pytest.mark.parametrize("kernel", NAMES)
def test_kernels_on_a_gpu(kernel, asked):
    options = ASKED[asked] | dict(device="cuda", gradients=True)
    mark = table()[asked][kernel]
    if kernel == "flash_attn" and mark == "yes" and _kernels.flash_attn("flash_attn_func") is None:
        pytest.skip("needs flash-attn")
    if mark == "yes":
        agrees(call(kernel, **options), options)
    else:
        with pytest.raises(ValueError, match=f"needs another kernel than '{kernel}'"):
            call(kernel, **options)
