"""Recompute: the bits of keeping, and the memory that it is for."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch

from byhand.noise import Noise
from numpy_impl.layers.block import Block
from numpy_impl.layers.module import flatten
from numpy_impl.layers.stack import Stack
from torch_impl.layers.block import Block as TorchBlock
from torch_impl.layers.stack import Stack as TorchStack

SITES = dict(dropout=0.2, attention_dropout=0.1, hidden_dropout=0.1)


def same_bits(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_recomputed_gradients_have_the_same_bits():
    rng = np.random.default_rng(0)
    stack = Stack([Block(16, 2, 32, **SITES, rng=rng) for _ in range(3)])
    x, dy = rng.standard_normal((2, 2, 6, 16)).astype(np.float32)
    results = []
    for run in ("keep", "recompute"):
        y, backward = stack.forward(x, noise=Noise(seed=5, step=3), run=run, causal=True)
        dx, grads = backward(dy)
        results.append([y, dx, *flatten(grads).values()])
    assert len(results[0]) == 2 + len(stack.parameters())
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))
    assert same_bits(stack(x, noise=Noise(seed=5, step=3), run="inference", causal=True), results[0][0])


def test_recomputed_gradients_have_the_same_bits_in_torch():
    torch.manual_seed(0)
    stack = TorchStack([TorchBlock(16, 2, 32, **SITES) for _ in range(3)])
    x, dy = torch.randn(2, 2, 6, 16)
    results = []
    for run in ("keep", "recompute"):
        leaf = x.clone().requires_grad_()
        y = stack(leaf, noise=Noise(seed=5, step=3), run=run, causal=True)
        results.append([y, *torch.autograd.grad(y, [leaf, *stack.parameters()], dy)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not stack(x, run="inference").requires_grad


@pytest.mark.parametrize(("run", "allowed"), [("keep", 200), ("recompute", 2.6), ("inference", 1.6)])
def test_what_is_kept(run, allowed):
    # In units of the layers' inputs together: keeping holds dozens of arrays a layer, recomputing holds one.
    stack = Stack([Block(32, 2, 128, rng=np.random.default_rng(i)) for i in range(4)])
    x = np.ones((8, 64, 32), dtype=np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        y, backward = stack.forward(x, run=run)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert y.shape == x.shape
    assert (backward is None) == (run == "inference")
    assert held / (4 * x.nbytes) < allowed
    if run == "keep":
        assert held / (4 * x.nbytes) > 10
