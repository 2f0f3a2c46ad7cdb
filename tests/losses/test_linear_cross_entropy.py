"""Chunked linear cross-entropy: what it is for is that all logits never exist."""

import tracemalloc

import numpy as np
import torch
import torch.nn.functional as F

import numpy_impl.losses.linear_cross_entropy as by_hand
import torch_impl.losses.linear_cross_entropy as twin

RNG = np.random.default_rng(0)


def test_all_logits_never_exist():
    n, d, v = 2048, 8, 1000
    hidden, weight = RNG.standard_normal((n, d)).astype(np.float32), RNG.standard_normal((v, d)).astype(np.float32)
    targets = RNG.integers(0, v, n)
    tracemalloc.start()
    _, backward = by_hand.linear_cross_entropy(hidden, weight, targets=targets, chunk=64)
    backward(np.array(1, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * v * 4 / 4


def test_the_twin_keeps_no_logits_for_its_backward():
    n, d, v = 64, 4, 50
    hidden, weight = torch.randn(n, d, requires_grad=True), torch.randn(v, d, requires_grad=True)
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        twin.linear_cross_entropy(hidden, weight, targets=torch.randint(0, v, (n,)), chunk=8)
    assert max(held, default=0) <= v * d


def test_bfloat16_is_summed_in_float32():
    hidden, weight, targets = torch.randn(500, 16), torch.randn(300, 16), torch.randint(0, 300, (500,))
    low, low_weight = hidden.bfloat16(), weight.bfloat16()
    got = twin.linear_cross_entropy(low, low_weight, targets=targets, chunk=7)
    want = F.cross_entropy(low.float() @ low_weight.float().T, targets)
    assert got.dtype == torch.bfloat16
    assert abs(got.item() - want.item()) < 0.01 * want.item()
