"""Elementwise ops on arrays of several blocks: each piece lands in its own place, forward and backward."""

import numpy as np
import pytest
import torch

from numpy_impl.ops._blocks import by_blocks
from parity.registry import find

ONE = ["erf", "relu", "relu_squared", "leaky_relu", "gelu", "gelu_tanh", "gelu_sigmoid", "sigmoid", "tanh", "silu", "mish", "softplus"]
TWO = ["glu", "reglu", "geglu", "geglu_tanh", "swiglu", "bilinear"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ONE + TWO)
def test_several_blocks(name, dtype):
    rng, component = np.random.default_rng(0), find(f"ops.{name}")
    *arrays, dy = (rng.standard_normal((7, 10_001)).astype(dtype) for _ in range(3 if name in TWO else 2))
    y, backward = component.implementation("numpy")(*arrays)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    want = component.implementation("torch")(*tensors)
    want.backward(torch.tensor(dy))
    near = dict(rtol=0, atol=1e-5 if dtype == np.float32 else 1e-9)
    np.testing.assert_allclose(y, want.detach(), **near)
    grads = backward(dy)
    for grad, tensor in zip(grads if name in TWO else [grads], tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad, **near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_to_work_in_begin_at_a_cache_line_and_are_as_long_as_the_piece(dtype):
    seen = []
    by_blocks(lambda x, y, scratch: seen.append((scratch.ctypes.data % 64, scratch.shape, x.size)), np.zeros(40_000, dtype), scratch=3)
    assert seen == [(0, (3, 1 << 15), 1 << 15), (0, (3, 40_000 - (1 << 15)), 40_000 - (1 << 15))]
