"""SiLU, Mish and softplus against torch's modules, where it is hard: far out, and at softplus' threshold."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import numpy_impl.ops.silu as by_hand
import torch_impl.ops.silu as twin


@pytest.mark.parametrize("name,oracle", [("silu", F.silu), ("mish", F.mish), ("softplus", F.softplus)])
def test_relative_accuracy_far_to_the_left(name, oracle):
    x = -np.linspace(1, 700, 5001)
    y, backward = getattr(by_hand, name)(x)
    tensor = torch.tensor(x, requires_grad=True)
    want = oracle(tensor)
    want.sum().backward()
    np.testing.assert_allclose(y, want.detach(), rtol=1e-12)
    np.testing.assert_allclose(backward(np.ones_like(x)), tensor.grad, rtol=1e-9)


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_softplus_has_no_step_where_torch_s_default_has_one(side):
    x = np.nextafter(20.0, [0, 40])
    exact = x + np.log1p(np.exp(-x))
    y = by_hand.softplus(x)[0] if side == "numpy" else twin.softplus(torch.tensor(x)).numpy()
    np.testing.assert_allclose(y, exact, rtol=1e-15)
    assert F.softplus(torch.tensor(x))[1].item() < exact[1] - 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["silu", "mish", "softplus"])
def test_far_out_it_is_x_or_nothing(name, dtype):
    x = np.array([1e4, -1e4, 3e3, -3e3], dtype)
    y, backward = getattr(by_hand, name)(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(backward(np.ones_like(x)), [1, 0, 1, 0])
