"""LoRA for embeddings against peft: results, gradients, merged weights, initial values."""

import numpy as np
import peft
import pytest
import torch

from numpy_impl.finetune.lora_embedding import LoRAEmbedding
from numpy_impl.layers.embedding import Embedding


def oracle(padding_idx, **options):
    """peft's layer around a table of 7 rows, its factors filled (A starts at zero)."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(7, 4, padding_idx=padding_idx))
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0"], **options)
    layer = peft.get_peft_model(model, config).double().base_model.model[0]
    with torch.no_grad():
        layer.lora_embedding_A["default"].normal_()
        if options.get("use_dora"):
            layer.lora_magnitude_vector["default"].weight.uniform_(0.5, 2)
    return layer


def ours(layer, **options):
    table = Embedding(7, 4, padding_idx=layer.base_layer.padding_idx, dtype=np.float64)
    table.weight = layer.base_layer.weight.detach().numpy().copy()
    made = LoRAEmbedding(table, r=3, alpha=6, **options)
    state = {"lora_A": layer.lora_embedding_A["default"], "lora_B": layer.lora_embedding_B["default"]}
    if options.get("dora"):
        state["magnitude"] = layer.lora_magnitude_vector["default"].weight
    made.adapters["default"].load_state_dict({name: value.detach().numpy() for name, value in state.items()})
    return made


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_peft(padding_idx, rslora, dora):
    """The same output, gradients and merged table, with and without rank stabilization, DoRA and a padding row."""
    layer = oracle(padding_idx, use_rslora=rslora, use_dora=dora)
    made = ours(layer, rslora=rslora, dora=dora)
    ids = np.array([[2, 6, 2, 0], [1, 2, 0, 5]])
    want = layer(torch.from_numpy(ids))
    y, backward = made.forward(ids)
    dy = np.random.default_rng(0).standard_normal(y.shape)
    want.backward(torch.from_numpy(dy))
    grads = backward(dy)["adapters"]["default"]
    np.testing.assert_allclose(y, want.detach(), atol=1e-13)
    np.testing.assert_allclose(grads["lora_A"], layer.lora_embedding_A["default"].grad, atol=1e-12)
    np.testing.assert_allclose(grads["lora_B"], layer.lora_embedding_B["default"].grad, atol=1e-12)
    assert (padding_idx is None) == grads["lora_A"][:, 2].any()
    if dora:
        np.testing.assert_allclose(grads["magnitude"], layer.lora_magnitude_vector["default"].weight.grad, atol=1e-12)
    layer.merge()
    made.merge()
    np.testing.assert_allclose(made.base.weight, layer.base_layer.weight.detach(), atol=1e-13)


def test_peft_s_start():
    """A at zero, B as unit normals, a DoRA magnitude as the lengths of the columns: what peft starts from."""
    model = torch.nn.Sequential(torch.nn.Embedding(50, 40))
    layer = peft.get_peft_model(model, peft.LoraConfig(r=20, target_modules=["0"], use_dora=True)).base_model.model[0]
    table = Embedding(50, 40)
    table.weight = layer.base_layer.weight.detach().numpy().copy()
    made = LoRAEmbedding(table, r=20, alpha=1, dora=True, rng=np.random.default_rng(0)).adapters["default"]
    for lora_A, lora_B in ((made.lora_A, made.lora_B),
                           (layer.lora_embedding_A["default"].detach().numpy(), layer.lora_embedding_B["default"].detach().numpy())):
        assert lora_A.shape == (20, 50) and not lora_A.any()
        assert lora_B.shape == (40, 20) and abs(lora_B.std() - 1) < 0.1
    np.testing.assert_allclose(made.magnitude, layer.lora_magnitude_vector["default"].weight.detach(), rtol=1e-6)
