"""IA³ against peft's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.gpt2 import GPT2Config
from numpy_impl.finetune.ia3 import apply_ia3
from numpy_impl.layers.module import flatten
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.optim.adamw import AdamW
from torch_impl.finetune.ia3 import apply_ia3 as torch_apply_ia3

PLACES = {"k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj", "down_proj": "mlp.down_proj"}


def test_logits_and_gradients_are_those_of_peft(llamas, text):
    peft = pytest.importorskip("peft")
    theirs, ours, twin = llamas
    (ids, targets), rng = text, np.random.default_rng(1)
    config = peft.IA3Config(target_modules=list(PLACES), feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(theirs, config)
    vectors = {}
    for name in apply_ia3(ours):
        block, last = name.split(".")[1], name.rpartition(".")[2]
        layer = theirs.get_submodule(f"base_model.model.model.layers.{block}.{PLACES[last]}")
        vector = layer.ia3_l["default"]
        vector.data = torch.tensor(rng.normal(1, 0.5, tuple(vector.shape)))
        vectors[f"{name}.ia3_l"] = vector
    assert torch_apply_ia3(twin) == [name.removesuffix(".ia3_l") for name in vectors]
    assert list(ours.parameters()) == list(vectors) == [name for name, p in twin.named_parameters() if p.requires_grad]
    for name, vector in vectors.items():
        ours.parameters()[name][...] = vector.detach().numpy().ravel()
        twin.get_parameter(name).data.copy_(vector.data.ravel())

    want = theirs(input_ids=torch.tensor(ids)).logits
    F.cross_entropy(want.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    np.testing.assert_allclose(ours(ids), want.detach(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(twin(torch.tensor(ids)).detach(), want.detach(), rtol=0, atol=2e-5)
    grads = flatten(ours.loss(ids, targets)[1]())
    twin.loss(torch.tensor(ids), torch.tensor(targets)).backward()
    assert grads.keys() == vectors.keys()
    for name, vector in vectors.items():
        np.testing.assert_allclose(grads[name], vector.grad.ravel(), rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(twin.get_parameter(name).grad, vector.grad.ravel(), rtol=0, atol=2e-5, err_msg=name)


def test_training_lowers_the_loss_and_leaves_the_base_alone():
    rng = np.random.default_rng(0)
    model = GPT2(GPT2Config(vocabulary=9, max_length=8, d_model=16, n_layers=2, n_heads=2), rng=rng)
    for array in model.state_dict().values():
        array += rng.normal(0, 0.2, array.shape).astype(array.dtype)
    ids = rng.integers(0, 9, (4, 6))
    apply_ia3(model, targets=("k_proj", "v_proj", "o_proj"))
    bits = {name: array.tobytes() for name, array in model.state_dict().items() if name not in model.parameters()}
    optimizer, losses = AdamW(model.parameters(), lr=0.05, weight_decay=0.0), []
    for _ in range(15):
        loss, backward = model.loss(ids, (ids + 1) % 9)
        losses.append(float(loss))
        optimizer.step(flatten(backward()))
    assert losses[-1] < losses[0] - 0.05
    state = model.state_dict()
    assert all(state[name].tobytes() == before for name, before in bits.items())
    assert all(np.any(vector != 1) for vector in model.parameters().values())
