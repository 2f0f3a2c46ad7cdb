"""Llama against transformers' own Llama, Mistral, Qwen2 and Qwen3, and the sizes that people know."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.hugging_face.llama import (
    LLAMA_TYPES,
    llama_config_from_hugging_face,
    llama_config_to_hugging_face,
    llama_from_hugging_face,
    llama_to_hugging_face,
)
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.models.llama import Llama
from torch_impl.models.llama import Llama as TorchLlama

transformers = pytest.importorskip("transformers")

LENGTH = 9
TINY = LlamaConfig(vocabulary=11, max_length=16, d_model=24, n_layers=2, n_heads=6, n_kv_heads=2, d_hidden=20)


def rope(kind, **options):
    return RopeConfig(width=4, type=kind, base=100.0, **options)


# Nine tokens are read: more than some were trained on, so that every scaling has something to do. Version 4 of transformers takes YaRN's
# factor from max_position_embeddings, 160 below, whatever the file says.
ROPES = [
    rope("linear", factor=2.0),
    rope("ntk", factor=2.0),
    rope("dynamic", factor=2.0, original_length=3),
    rope("yarn", factor=4.0, original_length=40),
    rope("yarn", factor=4.0, original_length=40, mscale=0.7, mscale_all_dim=0.4, truncate=False),
    rope("llama3", factor=4.0, original_length=30, low_freq_factor=1.0, high_freq_factor=4.0),
    rope("longrope", factor=4.0, original_length=3, short_factor=(1.0, 1.5), long_factor=(2.0, 5.0)),
    rope("longrope", factor=4.0, original_length=30, short_factor=(1.0, 1.5), long_factor=(2.0, 5.0)),
]
CONFIGS = {
    "llama": TINY,
    "llama, tied, biased": dataclasses.replace(TINY, tied=True, attention_bias=True, mlp_bias=True, norm_eps=1e-3),
    "llama, wide heads": dataclasses.replace(TINY, head_width=8, rope=RopeConfig(width=8, base=500.0)),
    "llama, one kv head, geglu": dataclasses.replace(TINY, n_kv_heads=1, activation="geglu"),
    "mistral": dataclasses.replace(TINY, window=3),
    "qwen2": dataclasses.replace(TINY, attention_bias="qkv"),
    "qwen2, tied, window": dataclasses.replace(TINY, attention_bias="qkv", tied=True, window=4),
    "qwen3": dataclasses.replace(TINY, qk_norm=True, head_width=8, rope=RopeConfig(width=8)),
    "qwen3, biased, window": dataclasses.replace(TINY, qk_norm=True, attention_bias=True, window=2),
} | {f"llama, {r.type} {i}": dataclasses.replace(TINY, rope=r, max_length=160) for i, r in enumerate(ROPES)}


class Double:
    """torch, in which float32 is float64: transformers computes norms, softmax and angles in what it calls float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def theirs_of(monkeypatch):
    """A config -> a random model of transformers, in float64 throughout."""
    places = [f"transformers.models.{kind}.modeling_{kind}" for kind in LLAMA_TYPES] + ["transformers.modeling_rope_utils"]
    for place in places:
        monkeypatch.setattr(importlib.import_module(place), "torch", Double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def make(config):
        values = llama_config_to_hugging_face(config)
        cls = getattr(transformers, values["architectures"][0])
        model = cls(cls.config_class(**values, attn_implementation="eager", use_cache=False)).double()
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():  # biases and norms start as constants: they too must be told apart
                parameter.normal_(std=0.4)
                if "norm" in name:
                    parameter.add_(1)
        return model

    return make


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}


def results(side, config, state, ids, targets):
    """(logits, loss, gradients) of one side of ours."""
    if side == "numpy":
        model = Llama(config, dtype=np.float64)
        model.load_state_dict(state)
        loss, backward = model.loss(ids, targets)
        return model(ids), loss, flatten(backward())
    model = TorchLlama(config, dtype=torch.float64)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    loss = model.loss(torch.tensor(ids), torch.tensor(targets))
    loss.backward()
    grads = arrays({name: p.grad for name, p in model.named_parameters()})
    return model(torch.tensor(ids)).detach().numpy(), loss.detach().numpy(), grads


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_and_gradients_are_those_of_transformers(theirs_of, config, side):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (3, LENGTH))
    targets = np.roll(ids, -1, axis=1)
    targets[:, -1] = targets[0, 3:5] = -100
    theirs = theirs_of(config)
    want = theirs(input_ids=torch.tensor(ids)).logits
    want_loss = F.cross_entropy(want.flatten(0, 1), torch.tensor(targets).flatten())  # the model's own loss casts to float32
    want_loss.backward()
    wanted = llama_from_hugging_face(arrays({name: p.grad for name, p in theirs.named_parameters()}), config)

    state = llama_from_hugging_face(arrays(theirs.state_dict()), config)
    logits, loss, grads = results(side, config, state, ids, targets)
    np.testing.assert_allclose(logits, want.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(loss, want_loss.detach(), rtol=0, atol=1e-12)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_config_survives_transformers_shape_and_being_written_down(config):
    assert LlamaConfig.from_dict(dataclasses.asdict(config)) == config
    back = llama_config_from_hugging_face(llama_config_to_hugging_face(config))
    if config.rope.type in ("ntk", "dynamic", "longrope"):  # what is written in another way than ours
        back = dataclasses.replace(back, rope=config.rope, max_length=config.max_length)
    assert back == config


@pytest.mark.parametrize("config", [CONFIGS["llama"], CONFIGS["llama, tied, biased"], CONFIGS["qwen3"]])
def test_names_map_there_and_back(theirs_of, config):
    state = arrays(theirs_of(config).state_dict())
    back = llama_to_hugging_face(llama_from_hugging_face(state, config), config)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())


def test_files_without_prefix_or_tied_head_and_with_angles_are_read_too(theirs_of):
    config = CONFIGS["llama, tied, biased"]
    theirs = theirs_of(config)
    state = arrays(theirs.model.state_dict())
    assert "embed_tokens.weight" in state and "lm_head.weight" not in state
    old = state | {f"layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2) for i in range(2)}
    assert llama_from_hugging_face(old, config).keys() == Llama(config).state_dict().keys()


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("model.layers.1.mlp.up_proj.weight"), r"missing \['model.layers.1.mlp.up_proj.weight'\], unknown \[\]"),
    (lambda s: s.update({"model.layers.2.mlp.up_proj.weight": 1}), r"missing \[\], unknown \['model.layers.2.mlp.up_proj.weight'\]"),
    (lambda s: s.update({"lm_head.weight": s["model.embed_tokens.weight"] + 1}), "a head of its own"),
])
def test_what_is_no_model_of_the_config_is_refused(theirs_of, change, message):
    config = CONFIGS["llama, tied, biased"]
    state = arrays(theirs_of(config).state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        llama_from_hugging_face(state, config)


def test_what_is_not_ours_is_refused():
    state = Llama(TINY).state_dict()
    del state["norm.weight"]
    with pytest.raises(ValueError, match=r"needs exactly the names of our Llama of this config; missing \['norm.weight'\], unknown \[\]"):
        llama_to_hugging_face(state, TINY)


@pytest.mark.parametrize(("change", "message"), [
    (dict(model_type="gemma"), "model_type from 'llama', 'mistral', 'qwen2', 'qwen3'"),
    (dict(hidden_size=None), "a value for hidden_size"),
    (dict(hidden_act="gelu_new"), "hidden_act from 'silu', 'gelu', 'relu'"),
    (dict(rope_parameters=dict(rope_theta=100.0, partial_rotary_factor=0.5)), "rotary over whole heads"),
    (dict(model_type="qwen2", sliding_window=4, use_sliding_window=True, max_window_layers=1), "one type of attention in all layers"),
])
def test_configs_of_other_models_are_refused(change, message):
    values = llama_config_to_hugging_face(TINY)
    del values["rope_theta"], values["rope_scaling"]
    with pytest.raises(ValueError, match=message):
        llama_config_from_hugging_face(values | change)


@pytest.mark.parametrize("change", [
    dict(window=3, attention_bias=True), dict(window=3, mlp_bias=True), dict(qk_norm=True, attention_bias="qkv"),
    dict(activation="bilinear"),
    dict(rope=RopeConfig(width=2, head_width=4)),
])
def test_what_transformers_has_not_is_not_written(change):
    with pytest.raises(ValueError, match="llama_config_to_hugging_face needs"):
        llama_config_to_hugging_face(dataclasses.replace(TINY, **change))


def test_windows_of_qwen_are_read_as_it_means_them():
    values = llama_config_to_hugging_face(dataclasses.replace(TINY, attention_bias="qkv", window=4))
    assert llama_config_from_hugging_face(values).window == 4
    assert llama_config_from_hugging_face(values | dict(max_window_layers=2)).window is None
    assert llama_config_from_hugging_face(values | dict(use_sliding_window=False)).window is None
    assert llama_config_from_hugging_face(values | dict(layer_types=["full_attention"] * 2)).window is None


@pytest.mark.parametrize(("name", "parameters"), [
    ("smollm2-135m", 134_515_008), ("tinyllama-1.1b", 1_100_048_384), ("llama-2-7b", 6_738_415_616), ("llama-3-8b", 8_030_261_248),
    ("mistral-7b", 7_241_732_096),
])
def test_the_presets_have_the_published_sizes(name, parameters):
    config = LLAMA_PRESETS[name]
    assert config.parameters == parameters
    values = llama_config_to_hugging_face(config)
    theirs = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):  # shapes without memory
        ours, theirs = TorchLlama(config), theirs(theirs.config_class(**values))
    assert sum(p.numel() for p in ours.parameters()) == parameters
    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    named = llama_from_hugging_face({name: np.zeros(value.shape, "?") if "embed" in name or "lm_head" in name else value
                                     for name, value in theirs.state_dict().items()}, config)
    assert {name: tuple(value.shape) for name, value in named.items()} == shapes


@pytest.mark.parametrize("config", [CONFIGS["llama, wide heads"], CONFIGS["llama, tied, biased"], CONFIGS["qwen2"], CONFIGS["qwen3"],
                                    LLAMA_PRESETS["llama-1m"]])
def test_the_count_of_parameters_is_the_models(config):
    assert sum(p.size for p in Llama(config).parameters().values()) == config.parameters
    assert 0.9e6 < LLAMA_PRESETS["llama-1m"].parameters < 1.1e6


def test_recomputed_gradients_have_the_same_bits():
    config = dataclasses.replace(TINY, dropout=0.3)
    model, noise = Llama(config, rng=np.random.default_rng(0)), Noise(seed=2, step=7)
    ids = np.random.default_rng(1).integers(0, 11, (2, 8))
    grads = [flatten(model.loss(ids, np.roll(ids, -1, 1), noise=noise, run=run)[1]()) for run in ("keep", "recompute")]
    assert grads[0].keys() == model.parameters().keys()
    assert all(grads[0][name].tobytes() == grads[1][name].tobytes() for name in grads[0])


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_frozen_gets_no_gradient(tied):
    model = Llama(dataclasses.replace(TINY, tied=tied), rng=np.random.default_rng(0))
    model.freeze("tokens.*", "head.*", "blocks.0.*")
    ids = np.array([[1, 2, 3]])
    assert flatten(model.loss(ids, ids)[1]()).keys() == model.parameters().keys()
    assert flatten(model.forward(ids)[1](np.ones((1, 3, 11), np.float32))).keys() == model.parameters().keys()


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_a_token_sees_as_far_back_as_windows_reach_through_the_blocks(side):
    config = dataclasses.replace(TINY, window=3)           # two blocks, two tokens back in each
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, 12)
    other = ids.copy()
    other[3] = (ids[3] + 1) % 11
    model = Llama(config, rng=rng) if side == "numpy" else TorchLlama(config)
    rows = [model(i) if side == "numpy" else model(torch.tensor(i)).detach().numpy() for i in (ids, other)]
    assert np.flatnonzero((rows[0] != rows[1]).any(-1)).tolist() == [3, 4, 5, 6, 7]


def test_it_learns_a_sentence_by_heart():
    from numpy_impl.optim.adamw import AdamW

    model = Llama(TINY, rng=np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    ids = np.array([[1, 5, 2, 9, 3, 3, 7, 0]])
    for _ in range(60):
        loss, backward = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.step(flatten(backward()))
    assert float(loss) < 0.05
    assert np.array_equal(model(ids[:, :-1]).argmax(-1), ids[:, 1:])
