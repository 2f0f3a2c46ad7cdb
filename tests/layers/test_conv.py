"""Convolution layers against PyTorch's own: state, results, gradients, and the range of the initial values."""

import gc
import weakref

import numpy as np
import pytest
import torch

from numpy_impl.layers.conv import Conv1d, Conv2d
from torch_impl.layers import conv as twin

OPTIONS = dict(stride=2, padding=1, dilation=2, groups=2)


@pytest.mark.parametrize("axes, ours, theirs", [(1, Conv1d, torch.nn.Conv1d), (2, Conv2d, torch.nn.Conv2d)])
@pytest.mark.parametrize("bias", [True, False])
def test_torch_s_layer_with_the_same_state(axes, ours, theirs, bias):
    """The options mean what they mean in torch.nn, and a state moves between the two."""
    kernel = (3, 2)[:axes]
    layer, oracle = ours(4, 6, kernel, **OPTIONS, bias=bias, dtype=np.float64), theirs(4, 6, kernel, **OPTIONS, bias=bias).double()
    layer.load_state_dict({name: value.numpy() for name, value in oracle.state_dict().items()})
    x = torch.randn(2, 4, *(9, 8)[:axes], dtype=torch.float64, requires_grad=True)
    want = oracle(x)
    y, backward = layer.forward(x.detach().numpy())
    dy = np.random.default_rng(0).standard_normal(y.shape)
    want.backward(torch.from_numpy(dy))
    dx, grads = backward(dy)
    np.testing.assert_allclose(y, want.detach(), atol=1e-13)
    np.testing.assert_allclose(dx, x.grad, atol=1e-13)
    assert set(grads) == {name for name, _ in oracle.named_parameters()}
    for name, parameter in oracle.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad, atol=1e-12)


def test_the_range_of_torch_s_initial_values():
    """5,000 draws come close to a bound of 1/√(numbers summed), and do not pass it; so do torch's."""
    bound = (10 * 5 * 5) ** -0.5
    for layer in (Conv2d(20, 40, 5, groups=2), twin.Conv2d(20, 40, 5, groups=2), torch.nn.Conv2d(20, 40, 5, groups=2)):
        largest = abs(torch.as_tensor(np.asarray(layer.weight.tolist()))).max().item()
        assert 0.99 * bound < largest <= bound * (1 + 1e-6)


@pytest.mark.parametrize("layer, shape", [(Conv1d(4, 6, 3, **OPTIONS), (2, 4, 9)), (Conv2d(4, 6, 3, padding=1), (2, 4, 9, 8))])
def test_a_frozen_weight_costs_neither_its_gradient_nor_the_input(layer, shape):
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    y, backward = layer.forward(x)
    dx, grads = backward(y)
    layer.freeze("weight")
    alive, (same, frozen_backward) = weakref.ref(x), layer.forward(x)
    del x, backward
    gc.collect()
    assert alive() is None
    same_dx, frozen_grads = frozen_backward(y)
    assert np.array_equal(same, y) and np.array_equal(same_dx, dx)
    assert frozen_grads.keys() == {"bias"} and np.array_equal(frozen_grads["bias"], grads["bias"])
    layer.freeze()
    assert frozen_backward(y)[1] == {}
