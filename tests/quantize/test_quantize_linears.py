"""Whole models in four bits: nothing is replaced where a weight is bad, no model stands twice, and none needs memory to be made."""

import weakref

import numpy as np
import pytest
import torch

import numpy_impl.layers.linear
import numpy_impl.quantize.linear_4bit
import numpy_impl.quantize.quantize_linears
import torch_impl.layers.linear
import torch_impl.quantize.linear_4bit
import torch_impl.quantize.quantize_linears
from byhand.configs.llama import LlamaConfig
from numpy_impl.models.llama import Llama
from torch_impl.models.llama import Llama as TorchLlama

NumPy4bit = numpy_impl.quantize.linear_4bit.Linear4bit
quantize_linears = numpy_impl.quantize.quantize_linears.quantize_linears
quantize_twin = torch_impl.quantize.quantize_linears.quantize_linears
LINEARS = numpy_impl.layers.linear.Linear, torch_impl.layers.linear.Linear
CONFIG = LlamaConfig(vocabulary=16, max_length=8, d_model=64, n_layers=3, n_heads=2, d_hidden=96)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_before_any_layer_is_replaced(value):
    model = Llama(CONFIG)
    linear = dict(model.modules())["blocks.2.mlp.down_proj"]
    linear.weight[3, 5] = value
    with pytest.raises(ValueError, match=r"blocks\.2\.mlp\.down_proj\.weight finite"):
        quantize_linears(model)
    assert not any(isinstance(module, NumPy4bit) for _, module in model.modules())
    for make in (NumPy4bit.from_linear, lambda linear: NumPy4bit.from_linear(linear, double=True)):
        with pytest.raises(ValueError, match="finite"):
            make(linear)


def test_a_model_without_memory_is_quantized_too():
    """How a model that does not fit is loaded: made on no device, quantized, and then given the arrays of a file."""
    want = TorchLlama(CONFIG)
    names = quantize_twin(want, double=True)
    with torch.device("meta"):
        model = TorchLlama(CONFIG)
    assert quantize_twin(model, double=True) == names
    model.load_state_dict(want.state_dict(), assign=True)
    ids = torch.arange(8)[None]
    assert torch.equal(model(ids), want(ids))


def test_near_names_are_suggested():
    with pytest.raises(ValueError, match="near: q_proj"):
        quantize_linears(Llama(CONFIG), targets=("q_prj",))


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_matrices_go_as_they_are_replaced(side):
    """When the last layer is quantized, the full-precision matrices of all others are gone: the model never stands twice."""
    module = numpy_impl.quantize.linear_4bit if side == "numpy" else torch_impl.quantize.linear_4bit
    model = (Llama if side == "numpy" else TorchLlama)(CONFIG)
    below = model.modules() if side == "numpy" else model.named_modules()
    living = [weakref.ref(layer) for name, layer in below if isinstance(layer, LINEARS) and name != "head"]
    alive = []
    quantize = module.quantize_4bit

    def watched(weight, **options):
        alive.append(sum(ref() is not None for ref in living))
        return quantize(weight, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "quantize_4bit", watched)
        names = (quantize_linears if side == "numpy" else quantize_twin)(model)
    assert len(names) == len(living) == 21
    assert alive == list(range(21, 0, -1))


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_a_layer_in_two_places_stays_one_layer(side):
    model = (Llama if side == "numpy" else TorchLlama)(CONFIG)
    first, second = (model.blocks.layers if side == "numpy" else model.blocks)[:2]
    second.mlp.up_proj = first.mlp.up_proj
    names = (quantize_linears if side == "numpy" else quantize_twin)(model, targets=("up_proj",))
    assert names == [f"blocks.{i}.mlp.up_proj" for i in range(3)]
    assert first.mlp.up_proj is second.mlp.up_proj and type(first.mlp.up_proj).__name__ == "Linear4bit"
