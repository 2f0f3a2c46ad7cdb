"""The rectifiers at their kink and at what is not finite, as in torch."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.relu as by_hand
import torch_impl.ops.relu as twin


@pytest.mark.parametrize("name,options", [("relu", {}), ("relu_squared", {}), ("leaky_relu", {"negative_slope": 0.25}),
                                          ("leaky_relu", {"negative_slope": 0.0})])
def test_the_gradient_at_zero_and_far_out(name, options):
    x = np.array([0.0, -0.0, 5e-324, -5e-324, np.inf, -1e300])
    y, backward = getattr(by_hand, name)(x, **options)
    tensor = torch.tensor(x, requires_grad=True)
    want = getattr(twin, name)(tensor, **options)
    want.backward(torch.full((6,), 2.0, dtype=torch.float64))
    np.testing.assert_array_equal(y, want.detach())
    np.testing.assert_array_equal(backward(np.full(6, 2.0)), tensor.grad)
