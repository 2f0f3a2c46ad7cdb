"""LoRALinear against peft: the output, gradients and merge of a small network, with and without DoRA; and what is kept in memory."""

import gc
import math
import weakref

import numpy as np
import peft
import pytest
import torch
from torch import nn

from byhand.noise import Noise
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.linear import Linear

WIDTHS = [(6, 10), (10, 4), (4, 6)]
KINDS = [dict(), dict(rslora=True), dict(dora=True), dict(rslora=True, dora=True)]


class Net(nn.Module):
    """Three affine layers, the middle one without a bias, with tanh between them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o, bias=n != 1) for n, (i, o) in enumerate(WIDTHS)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


def pair(seed, *, r=3, alpha=5, rslora=False, dora=False):
    """peft's network in float64, its B away from zero, and ours with the same arrays."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=r, lora_alpha=alpha, use_rslora=rslora, use_dora=dora, target_modules=["layers.0", "layers.1", "layers.2"])
    theirs = peft.get_peft_model(Net(), config).double()
    ours = []
    for layer in theirs.base_model.model.layers:
        nn.init.normal_(layer.lora_B["default"].weight)
        base = Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=np.float64)
        base.load_state_dict({name: array(value) for name, value in layer.base_layer.state_dict().items()})
        mine = LoRALinear(base, r=r, alpha=alpha, rslora=rslora, dora=dora)
        adapter = mine.adapters["default"]
        adapter.lora_A[...] = array(layer.lora_A["default"].weight)
        adapter.lora_B[...] = array(layer.lora_B["default"].weight)
        if dora:                                               # its start, before B moved, is the norm of the weight alone
            np.testing.assert_allclose(adapter.magnitude, array(layer.lora_magnitude_vector["default"].weight), rtol=1e-7)
            adapter.magnitude += 0.3
            layer.lora_magnitude_vector["default"].weight = nn.Parameter(torch.from_numpy(adapter.magnitude.copy()))
        ours.append(mine)
    return theirs, ours


def array(tensor):
    return tensor.detach().double().numpy().copy()


def forward(layers, x):
    """Our network; backward: dy -> dx, the layers' gradients."""
    steps = []
    for n, layer in enumerate(layers):
        y, backward = layer.forward(x)
        x = np.tanh(y) if n < len(layers) - 1 else y
        steps.append((backward, 1 - x * x if n < len(layers) - 1 else 1.0))

    def back(dy):
        found = []
        for backward, slope in steps[::-1]:
            dy, grads = backward(dy * slope)
            found.append(grads)
        return dy, found[::-1]

    return x, back


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_output_gradients_and_merge_are_pefts(kind):
    theirs, ours = pair(1, **kind)
    x, dy = np.random.default_rng(0).standard_normal((7, 6)), np.random.default_rng(1).standard_normal((7, 6))
    tensor = torch.from_numpy(x).requires_grad_()
    want = theirs(tensor)
    want.backward(torch.from_numpy(dy))
    got, backward = forward(ours, x)
    dx, grads = backward(dy)

    np.testing.assert_allclose(got, array(want), atol=1e-12)
    np.testing.assert_allclose(dx, array(tensor.grad), atol=1e-12)
    for mine, grad, layer in zip(ours, grads, theirs.base_model.model.layers, strict=True):
        adapter = grad["adapters"]["default"]
        assert grad["base"] == {}
        np.testing.assert_allclose(adapter["lora_A"], array(layer.lora_A["default"].weight.grad), atol=1e-12)
        np.testing.assert_allclose(adapter["lora_B"], array(layer.lora_B["default"].weight.grad), atol=1e-12)
        if kind.get("dora"):
            np.testing.assert_allclose(adapter["magnitude"], array(layer.lora_magnitude_vector["default"].weight.grad), atol=1e-12)
        mine.merge()
    plain = theirs.merge_and_unload()
    for mine, layer in zip(ours, plain.layers, strict=True):
        np.testing.assert_allclose(mine.base.weight, array(layer.weight), atol=1e-12)


def test_dropout_with_dora_spares_the_base_as_pefts_does():
    """With everything dropped, peft's DoRA and ours leave the output of the frozen layer, bias and all."""
    theirs, ours = pair(2, dora=True)
    layer, mine = theirs.base_model.model.layers[0], ours[0]
    layer.lora_dropout["default"] = nn.Dropout(1.0)
    mine.adapters["default"].dropout = 1.0
    x = np.random.default_rng(3).standard_normal((5, 6))
    got = mine(x, noise=Noise(seed=1))
    np.testing.assert_allclose(got, array(layer(torch.from_numpy(x))), atol=1e-12)
    np.testing.assert_array_equal(got, mine.base(x))


@pytest.mark.parametrize("start", ["kaiming", "gaussian"])
def test_a_starts_as_in_peft(start):
    torch.manual_seed(0)
    config = peft.LoraConfig(r=16, target_modules=["0"], init_lora_weights=True if start == "kaiming" else "gaussian")
    theirs = array(peft.get_peft_model(nn.Sequential(nn.Linear(400, 3)), config).base_model.model[0].lora_A["default"].weight)
    ours = LoRALinear(Linear(400, 3), r=16, alpha=1, start=start, rng=np.random.default_rng(0)).adapters["default"]
    assert abs(ours.lora_A.std() / theirs.std() - 1) < 0.03
    assert not ours.lora_B.any()
    if start == "kaiming":
        assert 0.99 < np.abs(ours.lora_A).max() * math.sqrt(400) <= 1


def test_ranks_that_are_extreme():
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for r, alpha in ((0, 1), (50, 1), (2, 1e9), (2, 0)):
        layer = LoRALinear(Linear(3, 4), r=r, alpha=alpha)
        layer.adapters["default"].lora_B[...] = 1e-3
        kept = layer.base.weight.copy()
        y = layer(x)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y, x @ (kept + layer.delta("default")).T + layer.base.bias, rtol=1e-5, atol=1e-5 * np.abs(y).max())
        assert (y == layer.base(x)).all() == (r == 0 or alpha == 0)
        layer.merge()
        layer.unmerge()
        np.testing.assert_array_equal(layer.base.weight, kept)


def held(layer, x_shape):
    """Whether the pullback keeps the layer's input alive."""
    x = np.random.default_rng(0).standard_normal(x_shape).astype(np.float32)
    alive = weakref.ref(x)
    _, backward = layer.forward(x)
    del x
    gc.collect()
    return alive() is not None, backward


def test_the_input_is_kept_only_by_adapters_that_run():
    layer = LoRALinear(Linear(8, 4), r=2, alpha=1)
    assert held(layer, (16, 8))[0]
    layer.disable()
    kept, backward = held(layer, (16, 8))
    assert not kept and backward(np.ones((16, 4), np.float32))[0].shape == (16, 8)
    layer.enable()
    layer.merge()
    assert not held(layer, (16, 8))[0]
