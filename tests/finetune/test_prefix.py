"""Prefix tuning against peft's, which hands the prefix over as a cache of past tokens: its texts begin at position n, ours at 0."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.gpt2 import GPT2Config
from byhand.hugging_face.gpt2 import gpt2_config_to_hugging_face, gpt2_from_hugging_face
from numpy_impl.finetune.prefix_layers import apply_prefix, materialize_prefix
from numpy_impl.layers.module import flatten
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.optim.adamw import AdamW
from numpy_impl.positions.rotary import rotary, rotary_frequencies, rotary_table
from torch_impl.finetune.prefix_layers import apply_prefix as torch_apply_prefix

N = 3


def turned(keys, positions, config):
    """(N, K · E) keys turned by so many positions, back where they are negative."""
    k, e = config.n_kv_heads, config.head_width
    cos, sin = rotary_table(np.full(len(keys), positions), frequencies=rotary_frequencies(e, base=config.rope.base), dtype=np.float64)
    return rotary(keys.reshape(-1, k, e).swapaxes(0, 1), cos=cos, sin=sin)[0].swapaxes(0, 1).reshape(keys.shape)


def test_logits_and_gradients_are_those_of_peft_for_keys_turned_back(llamas, text):
    peft = pytest.importorskip("peft")
    theirs, ours, twin = llamas
    (ids, targets), config = text, ours.config
    theirs = peft.get_peft_model(theirs, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N))
    table = theirs.prompt_encoder["default"].embedding.weight         # (N, layers · 2 · K · E), keys before values
    rows = np.random.default_rng(1).standard_normal((N, config.n_layers, 2, config.n_kv_heads * config.head_width))
    table.data = torch.tensor(rows.reshape(N, -1))
    names = apply_prefix(ours, n=N)
    assert torch_apply_prefix(twin, n=N) == names == ["blocks.0.attn", "blocks.1.attn"]
    for i, name in enumerate(names):
        own = np.concatenate([turned(rows[:, i, 0], -N, config), rows[:, i, 1]], -1)
        ours.state_dict()[f"{name}.prefix.rows"][...] = own
        twin.get_parameter(f"{name}.prefix.rows").data.copy_(torch.tensor(own))

    want = theirs(input_ids=torch.tensor(ids)).logits
    F.cross_entropy(want.flatten(0, 1), torch.tensor(targets).flatten()).backward()
    wanted = table.grad.numpy().reshape(rows.shape)
    np.testing.assert_allclose(ours(ids), want.detach(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(twin(torch.tensor(ids)).detach(), want.detach(), rtol=0, atol=2e-5)
    grads = flatten(ours.loss(ids, targets)[1]())
    twin.loss(torch.tensor(ids), torch.tensor(targets)).backward()
    for i, name in enumerate(names):
        key = f"{name}.prefix.rows"
        want_grad = np.concatenate([turned(wanted[:, i, 0], -N, config), wanted[:, i, 1]], -1)      # a turn's transpose is the turn back
        np.testing.assert_allclose(grads[key], want_grad, rtol=0, atol=2e-5)
        np.testing.assert_allclose(twin.get_parameter(key).grad, want_grad, rtol=0, atol=2e-5)


def test_the_mlp_of_peft_is_ours_once_a_layer(text):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ids, _ = text
    config = GPT2Config(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt2_config_to_hugging_face(config))).double().eval()
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.4)
    ours = GPT2(config, dtype=np.float64)
    ours.load_state_dict(gpt2_from_hugging_face({name: value.numpy().copy() for name, value in theirs.state_dict().items()}))
    ours.positions.weight[: 16 - N] = ours.positions.weight[N:].copy()        # their texts begin at position N
    theirs = peft.get_peft_model(
        theirs, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N, prefix_projection=True, encoder_hidden_size=5)
    ).double()
    encoder = {name: value.numpy() for name, value in theirs.prompt_encoder["default"].state_dict().items()}
    for i, name in enumerate(apply_prefix(ours, n=N, hidden=5)):
        own = ours.state_dict()
        part = slice(i * 24, (i + 1) * 24)                                    # their last layer gives all layers' keys and values
        own[f"{name}.prefix.embedding"][...] = encoder["embedding.weight"]
        for kind in ("weight", "bias"):
            own[f"{name}.prefix.down.{kind}"][...] = encoder[f"transform.0.{kind}"]
            own[f"{name}.prefix.up.{kind}"][...] = encoder[f"transform.2.{kind}"][part]
    want = theirs(input_ids=torch.tensor(ids)).logits.detach()
    np.testing.assert_allclose(ours(ids), want, rtol=0, atol=1e-9)
    assert materialize_prefix(ours) == ["blocks.0.attn.prefix", "blocks.1.attn.prefix"]
    np.testing.assert_allclose(ours(ids), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("hidden", [None, 8])
def test_training_lowers_the_loss_and_leaves_the_base_alone(hidden):
    rng = np.random.default_rng(0)
    model = GPT2(GPT2Config(vocabulary=9, max_length=8, d_model=16, n_layers=2, n_heads=2), rng=rng)
    for array in model.state_dict().values():
        array += rng.normal(0, 0.2, array.shape).astype(array.dtype)
    ids = rng.integers(0, 9, (4, 6))
    apply_prefix(model, n=N, hidden=hidden, rng=rng)
    bits = {name: array.tobytes() for name, array in model.state_dict().items() if name not in model.parameters()}
    optimizer, losses = AdamW(model.parameters(), lr=0.05, weight_decay=0.0), []
    for _ in range(15):
        loss, backward = model.loss(ids, (ids + 1) % 9, run="recompute")
        losses.append(float(loss))
        optimizer.step(flatten(backward()))
    assert losses[-1] < losses[0] - 0.05
    state = model.state_dict()
    assert all(state[name].tobytes() == before for name, before in bits.items())
