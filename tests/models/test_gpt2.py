"""GPT-2 against transformers' own, and the sizes that people know."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.gpt2 import GPT2_PRESETS, GPT2Config
from byhand.hugging_face.gpt2 import gpt2_from_hugging_face, gpt2_to_hugging_face
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.models.gpt2 import GPT2
from torch_impl.models.gpt2 import GPT2 as TorchGPT2

TINY = GPT2Config(vocabulary=11, max_length=8, d_model=12, n_layers=2, n_heads=3, d_hidden=20)


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}


@pytest.fixture(scope="module")
def theirs():
    """A random GPT2LMHeadModel of the sizes of TINY, in float64, without dropout."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3, n_inner=20, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="eager", use_cache=False,
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).double().train()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as constants: they too must be told apart
            parameter.normal_(std=0.4)
    return model


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_logits_and_gradients_are_those_of_transformers(theirs, side):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (3, 8))
    targets = np.roll(ids, -1, axis=1)
    targets[:, -1] = targets[0, 3:5] = -100
    theirs.zero_grad()
    want = theirs(input_ids=torch.tensor(ids)).logits
    want_loss = F.cross_entropy(want.flatten(0, 1), torch.tensor(targets).flatten())  # the model's own loss casts to float32
    want_loss.backward()
    wanted = gpt2_from_hugging_face(arrays({name: p.grad for name, p in theirs.named_parameters()}))

    state = gpt2_from_hugging_face(arrays(theirs.state_dict()))
    if side == "numpy":
        model = GPT2(TINY, dtype=np.float64)
        model.load_state_dict(state)
        logits = model(ids)
        loss, backward = model.loss(ids, targets)
        grads = flatten(backward())
    else:
        model = TorchGPT2(TINY, dtype=torch.float64)
        model.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}, strict=True)
        logits = model(torch.tensor(ids)).detach().numpy()
        loss = model.loss(torch.tensor(ids), torch.tensor(targets))
        loss.backward()
        grads, loss = arrays({name: p.grad for name, p in model.named_parameters()}), loss.detach().numpy()

    np.testing.assert_allclose(logits, want.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(loss, want_loss.detach(), rtol=0, atol=1e-12)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=1e-9, err_msg=name)


def test_names_map_there_and_back(theirs):
    state = arrays(theirs.state_dict())
    back = gpt2_to_hugging_face(gpt2_from_hugging_face(state))
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    theirs.load_state_dict({name: torch.tensor(np.ascontiguousarray(value)) for name, value in back.items()}, strict=True)


def test_files_without_prefix_and_with_masks_are_read_too(theirs):
    state = arrays(theirs.transformer.state_dict())
    old = state | {f"h.{i}.attn.bias": np.ones((1, 1, 8, 8)) for i in range(2)} | {"h.0.attn.masked_bias": np.array(-1e4)}
    assert gpt2_from_hugging_face(old).keys() == GPT2(TINY).state_dict().keys()


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("transformer.h.1.ln_2.bias"), r"missing \['h.1.ln_2.bias'\], unknown \[\]"),
    (lambda s: s.update({"transformer.h.0.attn.rotary": np.ones(3)}), r"missing \[\], unknown \['h.0.attn.rotary'\]"),
    (lambda s: s.update({"lm_head.weight": s["lm_head.weight"] + 1}), "a head of its own"),
    (lambda s: s.update({"transformer.h.0.attn.c_attn.bias": np.ones(35)}), r"c_attn.bias with a multiple of 3 columns; got shape \(35,\)"),
])
def test_what_is_no_gpt2_is_refused(theirs, change, message):
    state = arrays(theirs.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        gpt2_from_hugging_face(state)


def test_what_is_not_ours_is_refused():
    state = GPT2(TINY).state_dict()
    del state["norm.bias"]
    with pytest.raises(ValueError, match=r"missing \['norm.bias'\], unknown \[\]"):
        gpt2_to_hugging_face(state)


@pytest.mark.parametrize(("name", "parameters"), [
    ("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200),
])
def test_the_presets_have_the_published_sizes(name, parameters):
    config = GPT2_PRESETS[name]
    assert config.parameters == parameters
    with torch.device("meta"):  # shapes without memory
        model = TorchGPT2(config)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_count_of_parameters_is_the_models():
    for config in (TINY, GPT2_PRESETS["gpt2-1m"]):
        assert sum(p.size for p in GPT2(config).parameters().values()) == config.parameters
    assert 0.9e6 < GPT2_PRESETS["gpt2-1m"].parameters < 1.1e6


def test_recomputed_gradients_have_the_same_bits():
    config = dataclasses.replace(TINY, dropout=0.3)
    model, noise = GPT2(config, rng=np.random.default_rng(0)), Noise(seed=2, step=7)
    ids = np.random.default_rng(1).integers(0, 11, (2, 8))
    results = [flatten(model.loss(ids, np.roll(ids, -1, 1), noise=noise, run=run)[1]()) for run in ("keep", "recompute")]
    assert results[0].keys() == model.parameters().keys()
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


def test_frozen_embeddings_get_no_gradient():
    model = GPT2(TINY, rng=np.random.default_rng(0))
    model.freeze("tokens.*", "blocks.0.*")
    ids = np.array([[1, 2, 3]])
    assert flatten(model.loss(ids, ids)[1]()).keys() == model.parameters().keys()
    assert flatten(model.forward(ids)[1](np.ones((1, 3, 11), np.float32))).keys() == model.parameters().keys()


def test_it_learns_a_sentence_by_heart():
    from numpy_impl.optim.adamw import AdamW

    model = GPT2(dataclasses.replace(TINY, dropout=0.0), rng=np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    ids = np.array([[1, 5, 2, 9, 3, 3, 7, 0]])
    for _ in range(60):
        loss, backward = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.step(flatten(backward()))
    assert float(loss) < 0.05
    assert np.array_equal(model(ids[:, :-1]).argmax(-1), ids[:, 1:])
