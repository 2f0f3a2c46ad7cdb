"""Bottleneck adapters against the formula in torch.nn.functional, and in training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.llama import LlamaConfig
from numpy_impl.finetune.bottleneck import BottleneckAdapter, apply_bottleneck
from numpy_impl.layers.module import flatten
from numpy_impl.models.llama import Llama
from numpy_impl.optim.adamw import AdamW

ACTIVATIONS = {
    "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu, "silu": F.silu, "mish": F.mish,
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x), "relu_squared": lambda x: F.relu(x) * F.relu(x),
}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_is_the_formula_of_houlsby(activation, norm):
    rng = np.random.default_rng(0)
    adapter = BottleneckAdapter(6, 3, activation=activation, norm=norm, scale=0.5, dtype=np.float64)
    for array in adapter.state_dict().values():
        array[...] = rng.standard_normal(array.shape)
    state = {name: torch.tensor(array) for name, array in adapter.state_dict().items()}
    h = rng.standard_normal((4, 6))
    z = F.layer_norm(torch.tensor(h), (6,), state["norm.weight"], state["norm.bias"]) if norm else torch.tensor(h)
    z = ACTIVATIONS[activation](F.linear(z, state["down.weight"], state["down.bias"]))
    want = torch.tensor(h) + 0.5 * F.linear(z, state["up.weight"], state["up.bias"])
    np.testing.assert_allclose(adapter(h), want, rtol=0, atol=1e-12)


def test_training_lowers_the_loss_and_leaves_the_base_alone():
    rng = np.random.default_rng(0)
    model = Llama(LlamaConfig(vocabulary=9, max_length=8, d_model=16, n_layers=2, n_heads=2, d_hidden=24), rng=rng)
    for array in model.state_dict().values():
        array += rng.normal(0, 0.1, array.shape).astype(array.dtype)
    ids = rng.integers(0, 9, (4, 6))
    names = apply_bottleneck(model, width=4, norm=True, rng=rng)
    # 2 · D · R + R + D, and the norm's 2 · D (Houlsby et al. 2019, section 2.1)
    assert sum(array.size for array in model.parameters().values()) == len(names) * (2 * 16 * 4 + 4 + 16 + 2 * 16)
    bits = {name: array.tobytes() for name, array in model.state_dict().items() if name not in model.parameters()}
    optimizer, losses = AdamW(model.parameters(), lr=0.02, weight_decay=0.0), []
    for _ in range(15):
        loss, backward = model.loss(ids, (ids + 1) % 9)
        losses.append(float(loss))
        optimizer.step(flatten(backward()))
    assert losses[-1] < 0.8 * losses[0]
    state = model.state_dict()
    assert all(state[name].tobytes() == before for name, before in bits.items())
