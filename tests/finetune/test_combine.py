"""Combinations of adapters against peft's add_weighted_adapter, weights of either sign; and what a model does with them."""

import numpy as np
import peft
import pytest
import torch

from numpy_impl.finetune.combine import combine_adapters, combine_factors
from numpy_impl.finetune.lora_conv import LoRAConv2d
from numpy_impl.finetune.lora_embedding import LoRAEmbedding
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.conv import Conv2d
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.linear, self.conv = torch.nn.Embedding(9, 6), torch.nn.Linear(6, 8), torch.nn.Conv2d(3, 5, 3)


class Ours(Module):
    def __init__(self):
        self.table = LoRAEmbedding(Embedding(9, 6, dtype=np.float64), r=None, alpha=1)
        self.linear = LoRALinear(Linear(6, 8, dtype=np.float64), r=None, alpha=1)
        self.conv = LoRAConv2d(Conv2d(3, 5, 3, dtype=np.float64), r=None, alpha=1)


def factors(place, layer, name):
    """peft's parameters of one adapter."""
    if place == "table":
        return layer.lora_embedding_A[name], layer.lora_embedding_B[name]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def pair(ranks):
    """The same adapters in peft and here: "a" with α = 4 and "b" with α = 3, of these ranks."""
    torch.manual_seed(0)
    targets = ["table", "linear", "conv"]
    configs = {"a": peft.LoraConfig(r=ranks[0], lora_alpha=4, target_modules=targets),
               "b": peft.LoraConfig(r=ranks[1], lora_alpha=3, target_modules=targets)}
    oracle = peft.get_peft_model(Small(), configs["a"], adapter_name="a")
    oracle.add_adapter("b", configs["b"])
    oracle.double()
    ours = Ours()
    for place, layer in ours.children():
        for name, config in configs.items():
            layer.add(name, r=config.r, alpha=config.lora_alpha)
            for own, value in zip(("lora_A", "lora_B"), factors(place, getattr(oracle.base_model.model, place), name), strict=True):
                with torch.no_grad():
                    value.normal_()
                getattr(layer.adapters[name], own)[...] = value.detach().numpy()
    return oracle, ours


@pytest.mark.parametrize("kind, ranks", [("linear", (3, 3)), ("cat", (2, 3)), ("svd", (2, 3))])
@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.0, -0.5), (-1.0, -2.0)])
def test_peft(kind, ranks, weights):
    """The same delta in a table, a linear layer and a convolution, weights of either sign."""
    oracle, ours = pair(ranks)
    oracle.add_weighted_adapter(["a", "b"], list(weights), "both", combination_type=kind)
    assert combine_adapters(ours, dict(zip("ab", weights, strict=True)), name="both", kind=kind) == ["table", "linear", "conv"]
    for place, layer in ours.children():
        want = getattr(oracle.base_model.model, place).get_delta_weight("both").detach()
        np.testing.assert_allclose(layer.delta("both"), want, rtol=0, atol=1e-6)     # peft keeps some of the new factors in float32
        assert layer.active == ("a", "b")
        layer.enable("both")
        layer.merge()


def test_svd_never_forms_the_sum():
    """Two adapters of rank 2 on a 200,000 by 200,000 matrix, of 320 GB if it were formed: the nearest of rank 4 is exact."""
    rng = np.random.default_rng(0)
    adapters = [(rng.standard_normal((2, 200_000)), rng.standard_normal((200_000, 2)), 1.0) for _ in range(2)]
    lora_A, lora_B = combine_factors(adapters, weights=[1.0, -1.0], kind="svd", r=4)
    probe = rng.standard_normal(200_000)
    want = sum(sign * (B @ (A @ probe)) for sign, (A, B, _) in zip((1, -1), adapters, strict=True))
    np.testing.assert_allclose(lora_B @ (lora_A @ probe), want, atol=1e-6)
