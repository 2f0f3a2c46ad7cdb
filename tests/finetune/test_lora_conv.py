"""LoRA for convolutions against peft: results, gradients, merged kernels. (peft forgets the dilation of the base, so that stays 1 here.)"""

import numpy as np
import peft
import pytest
import torch

from numpy_impl.finetune.lora_conv import LoRAConv1d, LoRAConv2d
from numpy_impl.layers.conv import Conv1d, Conv2d

LAYERS = {1: (torch.nn.Conv1d, Conv1d, LoRAConv1d), 2: (torch.nn.Conv2d, Conv2d, LoRAConv2d)}


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("groups, dora", [(1, False), (1, True), (2, False)])
def test_peft(axes, kernel, groups, dora):
    """The same output and gradients; the same merged kernel where there are no groups, and none where there are."""
    theirs, plain, adapted = LAYERS[axes]
    options = dict(stride=2, padding=1, groups=groups)
    torch.manual_seed(0)
    model = torch.nn.Sequential(theirs(4, 6, kernel, **options))
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], use_dora=dora)
    oracle = peft.get_peft_model(model, config).double().base_model.model[0]
    factors = {"lora_A": oracle.lora_A["default"].weight, "lora_B": oracle.lora_B["default"].weight}
    if dora:
        factors["magnitude"] = oracle.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        for value in factors.values():
            value.uniform_(0.2, 1)
    base = plain(4, 6, kernel, **options, dtype=np.float64)
    base.load_state_dict({name: value.detach().numpy() for name, value in oracle.base_layer.state_dict().items()})
    layer = adapted(base, r=4, alpha=6, dora=dora)
    layer.adapters["default"].load_state_dict({
        name: value.detach().numpy().reshape(-1) if name == "magnitude" else value.detach().numpy() for name, value in factors.items()
    })

    x = torch.randn(2, 4, *(7, 6)[:axes], dtype=torch.float64, requires_grad=True)
    want = oracle(x)
    y, backward = layer.forward(x.detach().numpy())
    dy = np.random.default_rng(0).standard_normal(y.shape)
    want.backward(torch.from_numpy(dy))
    dx, grads = backward(dy)
    np.testing.assert_allclose(y, want.detach(), atol=1e-12)
    np.testing.assert_allclose(dx, x.grad, atol=1e-12)
    for name, value in factors.items():
        grad = grads["adapters"]["default"][name]
        np.testing.assert_allclose(grad, value.grad.numpy().reshape(grad.shape), atol=1e-11)
    if groups == 1 and (kernel, axes) != (1, 1):  # for a kernel of one step peft squeezes axes that Conv1d does not have
        oracle.merge()
        layer.merge()
        np.testing.assert_allclose(layer.base.weight, oracle.base_layer.weight.detach(), atol=1e-12)


def test_dilation_reaches_the_adapter():
    """An adapter of a dilated base is the convolution with s · B A, dilated; peft's own adapter has another length there and fails."""
    layer = LoRAConv1d(Conv1d(3, 5, 3, dilation=2, dtype=np.float64), r=2, alpha=4)
    adapter = layer.adapters["default"]
    adapter.lora_B[...] = np.random.default_rng(0).standard_normal(adapter.lora_B.shape)
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    weight = layer.base.weight + 2 * np.einsum("orx,rck->ock", adapter.lora_B, adapter.lora_A)
    want = torch.nn.functional.conv1d(x, torch.from_numpy(weight), torch.from_numpy(layer.base.bias), dilation=2)
    np.testing.assert_allclose(layer(x.numpy()), want, atol=1e-12)
