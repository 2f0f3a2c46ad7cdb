"""Prompt tuning against peft's, and in training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.gpt2 import GPT2Config
from numpy_impl.finetune.prompt import PromptTuned
from numpy_impl.layers.module import flatten
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.optim.adamw import AdamW
from torch_impl.finetune.prompt import PromptTuned as TorchPromptTuned


def test_logits_and_gradients_are_those_of_peft(llamas, text):
    peft = pytest.importorskip("peft")
    theirs, ours, twin = llamas
    (ids, targets), n = text, 3
    prompt = np.random.default_rng(1).standard_normal((n, ours.config.d_model))
    theirs = peft.get_peft_model(theirs, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=n))
    theirs.prompt_encoder["default"].embedding.weight.data = torch.tensor(prompt)
    ours, twin = PromptTuned(ours, n), TorchPromptTuned(twin, n)
    ours.prompt[...] = prompt
    twin.prompt.data.copy_(torch.tensor(prompt))

    want = theirs(input_ids=torch.tensor(ids)).logits[:, n:]         # they give logits at the prompt's places too
    F.cross_entropy(want.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    want_grad = theirs.prompt_encoder["default"].embedding.weight.grad
    np.testing.assert_allclose(ours(ids), want.detach(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(twin(torch.tensor(ids)).detach(), want.detach(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(ours.loss(ids, targets)[1]()["prompt"], want_grad, rtol=0, atol=2e-5)
    twin.loss(torch.tensor(ids), torch.tensor(targets)).backward()
    np.testing.assert_allclose(twin.prompt.grad, want_grad, rtol=0, atol=2e-5)


def test_training_lowers_the_loss_and_leaves_the_base_alone():
    rng = np.random.default_rng(0)
    base = GPT2(GPT2Config(vocabulary=9, max_length=8, d_model=16, n_layers=2, n_heads=2), rng=rng)
    for array in base.state_dict().values():
        array += rng.normal(0, 0.2, array.shape).astype(array.dtype)
    ids = rng.integers(0, 9, (4, 5))
    model = PromptTuned(base, 3, start=[1, 2, 3])
    bits = {name: array.tobytes() for name, array in base.state_dict().items()}
    optimizer, losses = AdamW(model.parameters(), lr=0.05, weight_decay=0.0), []
    for _ in range(15):
        loss, backward = model.loss(ids, (ids + 1) % 9)
        losses.append(float(loss))
        optimizer.step(flatten(backward()))
    assert losses[-1] < losses[0] - 0.02
    assert all(base.state_dict()[name].tobytes() == before for name, before in bits.items())


def test_a_text_that_leaves_no_room_for_the_prompt_is_refused():
    model = PromptTuned(GPT2(GPT2Config(vocabulary=9, max_length=8, d_model=16, n_layers=1, n_heads=2)), 3)
    assert model(np.zeros((1, model.config.max_length), int)).shape == (1, 5, 9)
    with pytest.raises(ValueError, match="positions below 8"):
        model(np.zeros((1, 6), int))
    with pytest.raises(ValueError, match="a causal language model as its base; got a PromptTuned"):
        PromptTuned(model, 1)
