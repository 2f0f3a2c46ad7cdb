"""The GELUs against torch and transformers, and how far the approximations are from the exact one."""

import numpy as np
import pytest
import torch

from numpy_impl.ops.gelu import gelu, gelu_sigmoid, gelu_tanh

ORACLES = {gelu: "gelu", gelu_tanh: "gelu_new", gelu_sigmoid: "quick_gelu"}


@pytest.mark.parametrize("op", ORACLES, ids=lambda op: op.__name__)
def test_values_and_gradients_are_those_of_transformers(op):
    activations = pytest.importorskip("transformers.activations")
    x = np.linspace(-12, 12, 4001)
    tensor = torch.tensor(x, requires_grad=True)
    want = activations.ACT2FN[ORACLES[op]](tensor)
    want.sum().backward()
    y, backward = op(x)
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(backward(np.ones_like(x)), tensor.grad, rtol=0, atol=1e-9)


def test_how_far_the_approximations_are():
    x = np.linspace(-10, 10, 100_001)
    exact = gelu(x)[0]
    assert 4.7e-4 < np.abs(gelu_tanh(x)[0] - exact).max() < 4.8e-4
    assert 0.0203 < np.abs(gelu_sigmoid(x)[0] - exact).max() < 0.0204


@pytest.mark.parametrize("op", ORACLES, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_it_is_x_or_nothing(op, dtype):
    x = np.array([1e4, -1e4, 3e3, -3e3], dtype)
    y, backward = op(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(backward(np.ones_like(x)), [1, 0, 1, 0])
