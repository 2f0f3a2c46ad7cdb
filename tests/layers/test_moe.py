"""What a mixture of experts holds on to, what padding gets of it, and what of it trains."""

import weakref

import numpy as np
import pytest
import torch

from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.layers.moe import MoE
from torch_impl.layers.moe import MoE as TorchMoE


@pytest.mark.parametrize("dropped", ["zero", "residual"])
def test_the_pullback_does_not_hold_what_was_told(dropped):
    layer = MoE(4, 6, 8, 2, capacity_factor=0.5, dropped=dropped, noisy=True, rng=np.random.default_rng(0))
    y, (routing,), backward = layer.routed(np.ones((3, 5, 4), np.float32), noise=Noise(1))
    told = [weakref.ref(array if array.base is None else array.base) for array in routing]
    del routing
    assert [array() for array in told] == [None, None, None]
    assert np.isfinite(backward(y)[0]).all()


def test_padding_gets_no_residual():
    layer, real = MoE(4, 6, 3, 2, capacity_factor=0.5, dropped="residual", rng=np.random.default_rng(0)), np.array([True, True, False])
    twin = TorchMoE(4, 6, 3, 2, capacity_factor=0.5, dropped="residual")
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in layer.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    y, (routing,), backward = layer.routed(x, real=real)
    dx, _ = backward(np.ones_like(y))
    assert y[:2].any() and not y[2].any() and not dx[2].any() and not routing.chosen[2].any()
    assert not twin.routed(torch.from_numpy(x), real=torch.from_numpy(real))[0][2].any()


@pytest.mark.parametrize("frozen", ["router.*", "experts.*", "shared*", "*"])
def test_the_gradients_are_those_of_what_trains(frozen):
    layer = MoE(4, 6, 3, 2, d_shared=5, shared_gate=True, noisy=True, correction=True, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    y, backward = layer.forward(x, noise=Noise(1))
    dx, every = backward(np.ones_like(y))
    assert set(flatten(every)) == set(layer.state_dict()) - {"router.correction"}
    layer.freeze(frozen)
    found, grads = layer.forward(x, noise=Noise(1))[1](np.ones_like(y))
    assert (found == dx).all() and set(flatten(grads)) == set(layer.parameters())
    assert all((flatten(every)[name] == grad).all() for name, grad in flatten(grads).items())
    assert flatten(layer.unfreeze().forward(x)[1](y)[1]).keys() == flatten(every).keys()
