"""FLOPs, elements and peaks are those that can be worked out on paper; oneDNN computes the same products."""

import functools

import numpy as np
import pytest
import torch

from benchmarks import counting, roofline
from benchmarks.components import inputs, rows
from benchmarks.workload import Column
from parity.registry import components


def test_a_linear_layer_forward_and_backward() -> None:
    x, w = torch.randn(8, 16, requires_grad=True), torch.randn(32, 16, requires_grad=True)
    counted = counting.count(lambda: torch.nn.functional.linear(x, w).backward(torch.ones(8, 32)))
    assert counted["flops"] == 3 * 2 * 8 * 16 * 32


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_pairs_it_looks_at(causal: bool) -> None:
    q, k, v = (torch.randn(2, 3, 64, 16, requires_grad=True) for _ in range(3))

    def run() -> None:
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal).sum().backward()

    pairs = 6 * (64 * 65 // 2 if causal else 64 * 64)
    assert counting.count(run)["flops"] == 2 * pairs * 16 * (2 + 5)


def test_attention_counts_what_a_mask_keeps() -> None:
    q, k, v = (torch.randn(2, 3, 64, 16, requires_grad=True) for _ in range(3))
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, :16] = True

    def run() -> None:
        torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()

    assert counting.count(run)["flops"] == 2 * 6 * 64 * 16 * 16 * (2 + 5)


def test_elements_by_kind() -> None:
    x = torch.randn(100, 7)
    counted = counting.count(lambda: torch.exp(x).add(1).t())
    assert counted["elements"] == {"simple": 700, "transcendental": 700}
    assert counted["operators"] == 2                        # the transpose is a view


def test_a_module_with_weights_of_its_own_counts_like_the_function() -> None:
    work = next(row for row in rows("small") if row.name == "layers.Linear").work(Column("torch"))
    given = inputs("layers.Linear", "small")
    x = given["call"]["x"]
    counted = counting.count(work.run)
    assert counted["flops"] == 3 * 2 * x.size * given["init"]["out_features"] and counted["mm"] == 3


def test_elements_are_those_that_are_touched() -> None:
    a, b, table, few = torch.randn(10, 10), torch.randn(50), torch.randn(1000, 4), torch.arange(3)
    assert counting.count(lambda: torch._foreach_add([a, b], 1))["elements"]["simple"] == 150
    assert counting.count(lambda: torch.nn.functional.embedding(few, table))["elements"]["simple"] == 12
    assert counting.count(lambda: table.index_put_((few,), torch.ones(3, 4)))["elements"]["simple"] <= 2 * 12 + 3
    for simple in (torch.relu, torch.logical_not, torch.tril):
        assert counting.count(functools.partial(simple, a))["elements"] == {"simple": 100, "transcendental": 0}
    params = [torch.nn.Parameter(torch.ones(300)), torch.nn.Parameter(torch.ones(50))]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = torch.optim.AdamW(params, fused=True)
    assert 350 <= counting.count(optimizer.step)["elements"]["simple"] < 4 * 350


def test_composed_operators_are_taken_apart_without_autograd_too() -> None:
    x, w, b = torch.randn(8, 16), torch.randn(32, 16), torch.randn(32)
    plain = counting.count(lambda: torch.nn.functional.linear(x, w, b))
    with torch.inference_mode():
        counted = counting.count(lambda: torch.nn.functional.linear(x, w, b))
    assert counted == plain and counted["flops"] == 2 * 8 * 16 * 32 and counted["elements"]["simple"] == 0
    with torch.inference_mode():
        assert counting.count(lambda: w @ x[0])["flops"] == 2 * 32 * 16


def test_peaks_are_what_is_allocated() -> None:
    def numpy_work() -> None:
        a = np.ones(1 << 20, np.float32)
        del a
        np.ones(1 << 19, np.float32)

    def torch_work() -> None:
        a = torch.ones(1 << 20)
        del a
        torch.ones(1 << 19)

    for peak in (counting.peak_bytes(numpy_work, "numpy"), counting.peak_bytes(torch_work, "torch")):
        assert peak is not None and 4 << 20 <= peak < (4 << 20) + 10_000


def test_onednn_computes_the_same_and_leaves_no_trace() -> None:
    x, w = torch.randn(33, 20, requires_grad=True), torch.randn(7, 20, requires_grad=True)
    b = torch.randn(7)

    def gradients() -> list[torch.Tensor]:
        y = torch.nn.functional.linear(x, w, b)
        return [y, *torch.autograd.grad(y, (x, w), torch.ones_like(y)), torch.addmm(torch.randn(33, 7) * 0, x, w.t(), alpha=2)]

    expected = gradients()
    with counting.through_onednn():
        for one, other in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(one, other)
        double = torch.randn(3, 4, dtype=torch.float64)
        torch.testing.assert_close(double @ double.t(), torch.einsum("ij,kj->ik", double, double))
        assert (torch.empty(0, 4) @ torch.empty(4, 2)).shape == (0, 2)
    torch.testing.assert_close(gradients()[0], expected[0])


def test_a_row_is_bound_by_what_takes_longest() -> None:
    rates = {"gemm": {"numpy default": 1e11}, "copy": {"numpy default": 1e10}, "add": 1e9, "exp": 1e8, "call": 1e-6}
    work = {"flops": 10**9, "bytes": 10**7, "elements": {"simple": 10**6, "transcendental": 10**5}, "operators": 10}
    floor = roofline.floors(work, rates)
    assert floor == pytest.approx({"products": 1e-2, "memory": 1e-3, "elementwise": 2e-3, "calls": 1e-5})
    assert roofline.bound(floor) == "products" and roofline.share(floor, 0.02) == pytest.approx(0.5)
    assert roofline.bound(roofline.floors({}, rates)) == "calls"


def test_every_component_has_a_row_and_none_is_listed_by_hand() -> None:
    assert [row.name for row in rows("medium")] == list(components())


@pytest.mark.parametrize("name", ["ops.layer_norm", "layers.Linear", "optim.AdamW", "layers.xavier_uniform", "train.fit", "optim.cosine"])
def test_each_kind_of_component_runs_on_both_sides(name: str) -> None:
    row = next(row for row in rows("small") if row.name == name)
    for column in ("numpy", "torch"):
        row.work(Column(column)).run()


def test_a_frozen_weight_is_read() -> None:
    work = next(row for row in rows("small") if row.name == "finetune.LoRALinear").work(Column("torch"))
    given = inputs("finetune.LoRALinear", "small")["init"]
    assert work.bytes is not None and work.bytes > 4 * given["in_features"] * given["out_features"]


def test_sizes_scale_the_batch() -> None:
    small, medium = (inputs("ops.layer_norm", size)["x"].shape for size in ("small", "medium"))
    assert medium == (4096, 768) and small == (512, 768)
