"""What a layer must bring through merging, rests, a move, a freeze and a copy; and that merging draws no random numbers."""

import copy
import pickle

import numpy as np
import pytest
import torch

from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.linear import Linear
from torch_impl.finetune.ia3 import IA3Linear as TorchIA3Linear
from torch_impl.finetune.lora_conv import LoRAConv1d as TorchLoRAConv1d
from torch_impl.finetune.lora_conv import LoRAConv2d as TorchLoRAConv2d
from torch_impl.finetune.lora_embedding import LoRAEmbedding as TorchLoRAEmbedding
from torch_impl.finetune.lora_linear import LoRALinear as TorchLoRALinear
from torch_impl.layers import conv as torch_conv
from torch_impl.layers.embedding import Embedding as TorchEmbedding
from torch_impl.layers.linear import Linear as TorchLinear
from torch_impl.quantize.linear_4bit import Linear4bit as TorchLinear4bit

KINDS = {
    "linear": (lambda: TorchLoRALinear(TorchLinear(5, 4), r=2, alpha=3), torch.ones(2, 5)),
    "DoRA on four bits": (lambda: TorchLoRALinear(TorchLinear4bit(8, 4), r=2, alpha=3, dora=True), torch.ones(2, 8)),
    "embedding": (lambda: TorchLoRAEmbedding(TorchEmbedding(5, 4), r=2, alpha=3), torch.tensor([1, 2])),
    "convolution": (lambda: TorchLoRAConv1d(torch_conv.Conv1d(3, 4, 2, stride=2), r=2, alpha=3), torch.ones(1, 3, 6)),
    "in the plane": (lambda: TorchLoRAConv2d(torch_conv.Conv2d(3, 4, 2, padding=1), r=2, alpha=3), torch.ones(1, 3, 5, 5)),
    "IA3": (lambda: TorchIA3Linear(TorchLinear(5, 4)), torch.ones(2, 5)),
    "IA3 of the input": (lambda: TorchIA3Linear(TorchLinear(5, 4), feed_forward=True), torch.ones(2, 5)),
}


def made(make):
    """The layer with other values in everything that trains, and before anything was drawn for them."""
    layer = make()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return layer


@pytest.mark.parametrize(("make", "x"), KINDS.values(), ids=KINDS)
def test_merging_draws_nothing_from_the_generator(make, x):
    layer = made(make)
    y, before = layer(x), torch.get_rng_state()
    layer.merge()
    torch.testing.assert_close(layer(x), y, atol=1e-5, rtol=1e-5)
    layer.unmerge()
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(layer(x), y)


@pytest.mark.parametrize(("make", "x"), KINDS.values(), ids=KINDS)
def test_the_base_kept_aside_moves_with_the_layer(make, x):
    layer = made(make)
    moved = copy.deepcopy(layer)
    moved.merge()
    moved.to(torch.float64)
    moved.unmerge()
    wide = x.double() if x.is_floating_point() else x
    assert torch.equal(moved(wide), layer.to(torch.float64)(wide))
    assert {name: p.dtype for name, p in moved.named_parameters()} == {name: p.dtype for name, p in layer.named_parameters()}


@pytest.mark.parametrize(("make", "x"), KINDS.values(), ids=KINDS)
def test_copies_of_a_merged_layer_unmerge(make, x):
    layer = made(make)
    y = layer(x)
    layer.merge()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        other.unmerge()
        assert torch.equal(other(x), y) and layer.merged


@pytest.mark.parametrize("trained", [False, True])
def test_a_bias_thawed_or_frozen_while_merged_stays_so(trained):
    layer, other = LoRALinear(Linear(5, 4), r=2, alpha=3), TorchLoRALinear(TorchLinear(5, 4), r=2, alpha=3)
    if not trained:
        layer.unfreeze("base.bias")
    layer.merge()
    (layer.unfreeze if trained else layer.freeze)("base.bias")
    other.merge()
    other.base.bias.requires_grad_(trained)
    for one in (layer, other):
        one.unmerge()
    assert layer.base.trains("bias") == other.base.bias.requires_grad == trained and not layer.base.trains("weight")


def test_a_numpy_layer_is_copied_with_what_is_merged():
    layer = LoRALinear(Linear(5, 4), r=2, alpha=3, dora=True)
    layer.adapters["default"].lora_B[...] = 0.5
    x = np.ones((2, 5), np.float32)
    y = layer(x)
    layer.merge()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        other.unmerge()
        other.base.bias[...] = 9
        layer.unmerge()
        assert np.array_equal(layer(x), y) and not np.array_equal(other(x), y)
        layer.merge()


def test_what_is_frozen_in_an_adapter_stays_frozen():
    layer, other = LoRALinear(Linear(5, 4), r=2, alpha=3, dora=True), TorchLoRALinear(TorchLinear(5, 4), r=2, alpha=3, dora=True)
    layer.freeze("*lora_A")
    other.adapters["default"].lora_A.requires_grad_(False)
    for one in (layer, other):
        trained = {"adapters.default.lora_B", "adapters.default.magnitude"}
        assert trains(one) == trained
        one.enable("default")
        one.merge()
        assert not trains(one)
        one.unmerge()
        assert trains(one) == trained
        one.disable()
        one.add("second", r=1, alpha=1)
        assert trains(one) == {"adapters.second.lora_A", "adapters.second.lora_B"}
        one.enable()
        assert trains(one) == trained | {"adapters.second.lora_A", "adapters.second.lora_B"}
        copy.deepcopy(one).remove("second")
    layer.freeze()
    other.requires_grad_(False)
    for one in (layer, other):
        one.disable()
        one.enable()
        assert not trains(one)


def trains(layer):
    return set(layer.parameters()) if isinstance(layer, LoRALinear) else {n for n, p in layer.named_parameters() if p.requires_grad}
