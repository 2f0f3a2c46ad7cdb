"""T5 and T5 v1.1 against transformers' own, and the sizes that people know."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from byhand.configs.t5 import T5_PRESETS, T5Config
from byhand.hugging_face.t5 import t5_config_from_hugging_face, t5_config_to_hugging_face, t5_from_hugging_face, t5_to_hugging_face
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.models.t5 import T5
from numpy_impl.optim.adamw import AdamW
from torch_impl.models.t5 import T5 as TorchT5

transformers = pytest.importorskip("transformers")

# Distances go up to 8: exact buckets, logarithmic ones, and one that takes all from 5 on.
TINY = T5Config(vocabulary=11, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=3, d_hidden=20, head_width=5, buckets=8,
                max_distance=6, dropout=0.0)
V1_1 = dataclasses.replace(TINY, activation="geglu_tanh", tied=False)
SOURCE = np.random.default_rng(0).integers(0, 11, (3, 9))
KNOWN = np.arange(9) < np.array([[9], [2], [6]])
LABELS = np.random.default_rng(1).integers(0, 11, (3, 8))
LABELS[1, 3:] = LABELS[2, 1] = -100


class Double:
    """torch, in which float32 is float64: transformers computes norms and distances in what it calls float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def theirs_of(monkeypatch):
    """A config -> a random model of transformers, in float64 throughout."""
    monkeypatch.setattr(importlib.import_module("transformers.models.t5.modeling_t5"), "torch", Double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)

    def make(config):
        values = t5_config_to_hugging_face(config)
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**values, attn_implementation="eager", use_cache=False))
        if not config.tied:  # version 5 of transformers ties a new head whatever the config says; that of a v1.1 has been trained apart
            model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.shared.weight))
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(std=0.4)
                if "norm" in name:
                    parameter.add_(1)
        return model.double()

    return make


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}


def results(side, config, state):
    """(logits, loss, gradients) of one side of ours."""
    read = np.concatenate([np.full((3, 1), config.start), np.where(LABELS == -100, config.padding, LABELS)[:, :-1]], axis=1)
    if side == "numpy":
        model = T5(config, dtype=np.float64)
        model.load_state_dict(state)
        loss, backward = model.loss(SOURCE, LABELS, source_mask=KNOWN)
        return model(SOURCE, read, source_mask=KNOWN), loss, flatten(backward())
    model = TorchT5(config, dtype=torch.float64)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    source, known = torch.tensor(SOURCE), torch.tensor(KNOWN)
    loss = model.loss(source, torch.tensor(LABELS), source_mask=known)
    loss.backward()
    logits = model(source, torch.tensor(read), source_mask=known)
    return logits.detach().numpy(), loss.detach().numpy(), {name: p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("config", [
    TINY, V1_1, dataclasses.replace(V1_1, activation="swiglu", start=3, padding=4, norm_eps=1e-3, max_distance=20),
    dataclasses.replace(TINY, head_width=4, buckets=32, max_distance=128, activation="gelu"),
], ids=["T5", "T5 v1.1", "swiglu", "the usual buckets"])
def test_logits_loss_and_gradients_are_those_of_transformers(side, config, theirs_of):
    theirs = theirs_of(config)
    want = theirs(input_ids=torch.tensor(SOURCE), attention_mask=torch.tensor(KNOWN).long(), labels=torch.tensor(LABELS))
    want.loss.backward()
    state = t5_from_hugging_face(arrays(theirs.state_dict()), config)
    logits, loss, grads = results(side, config, state)
    np.testing.assert_allclose(logits, want.logits.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(loss, want.loss.detach(), rtol=0, atol=1e-12)
    wanted = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert len(wanted) == len(grads)
    for name, grad in t5_from_hugging_face(wanted, config).items():
        np.testing.assert_allclose(grads[name], grad, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("config", [TINY, V1_1], ids=["T5", "T5 v1.1"])
def test_states_and_configs_go_there_and_back(config, theirs_of):
    theirs = arrays(theirs_of(config).state_dict())
    back = t5_to_hugging_face(t5_from_hugging_face(theirs, config), config)
    assert back.keys() == theirs.keys()
    assert all(np.array_equal(back[name], theirs[name]) for name in theirs)
    assert t5_config_from_hugging_face(t5_config_to_hugging_face(config)) == config
    assert t5_config_from_hugging_face(transformers.T5Config(**t5_config_to_hugging_face(config)).to_dict()) == config


def test_files_of_the_first_t5_load(theirs_of):
    state = arrays(theirs_of(TINY).state_dict())
    unread = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.ones((8, 3))}
    want = t5_from_hugging_face(state, TINY)
    short = {name: array for name, array in state.items() if "embed_tokens" not in name and "lm_head" not in name}
    for variant in (state | unread, short):
        assert all(np.array_equal(array, want[name]) for name, array in t5_from_hugging_face(variant, TINY).items())
    with pytest.raises(ValueError, match="missing \\[\\], unknown \\['more'\\]"):
        t5_from_hugging_face(state | dict(more=np.ones(1)), TINY)
    with pytest.raises(ValueError, match="lm_head\\.weight to be shared\\.weight"):
        t5_from_hugging_face(state | {"lm_head.weight": np.ones((11, 12))}, TINY)
    with pytest.raises(ValueError, match="missing \\['decoder_norm\\.weight'\\]"):
        t5_to_hugging_face({name: array for name, array in want.items() if name != "decoder_norm.weight"}, TINY)


@pytest.mark.parametrize(("values", "message"), [
    (dict(d_kv=None), "a value for d_kv"),
    (dict(feed_forward_proj="gated-tanh"), "feed_forward_proj from"),
])
def test_what_is_no_t5_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        t5_config_from_hugging_face(t5_config_to_hugging_face(TINY) | values)


@pytest.mark.parametrize(("name", "count"), [
    ("t5-small", 60_506_624), ("t5-base", 222_903_552), ("t5-large", 737_668_096), ("t5-v1_1-small", 76_961_152),
    ("t5-v1_1-base", 247_577_856), ("flan-t5-small", 76_961_152), ("flan-t5-base", 247_577_856), ("t5-nano", None),
])
def test_presets_have_the_published_counts_of_parameters(name, count):
    config = T5_PRESETS[name]
    with torch.device("meta"):
        model = TorchT5(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters == (count or config.parameters)
    assert T5Config.from_dict(dataclasses.asdict(config)) == config


def test_every_preset_is_counted():
    counted = test_presets_have_the_published_counts_of_parameters.pytestmark[0].args[1]
    assert {name for name, _ in counted} == T5_PRESETS.keys()


def test_it_learns_to_write_backwards():
    """Which no model can do that does not tell positions apart."""
    config = dataclasses.replace(TINY, vocabulary=8, d_model=24, head_width=8, buckets=16, max_distance=32)
    model, rng = T5(config, rng=np.random.default_rng(0)), np.random.default_rng(1)
    optimizer = AdamW(model.parameters(), lr=5e-3)
    for _ in range(400):
        source = rng.integers(1, 8, (32, 5))
        _, backward = model.loss(source, source[:, ::-1])
        optimizer.step(flatten(backward()))
    source = rng.integers(1, 8, (64, 5))
    assert float(model.loss(source, source[:, ::-1], run="inference")[0]) < 0.2


def test_a_new_model_knows_nothing_yet():
    """Unit logits at most: the loss of T5's initial values is near ln V in both forms."""
    rng = np.random.default_rng(0)
    for config in (T5_PRESETS["t5-nano"], dataclasses.replace(T5_PRESETS["t5-nano"], tied=False, activation="geglu_tanh")):
        source = rng.integers(0, 256, (4, 32))
        loss, _ = T5(config, rng=rng).loss(source, rng.integers(0, 256, (4, 16)), run="inference")
        assert abs(float(loss) - np.log(256)) < 1


def test_what_is_hidden_of_the_source_does_not_matter():
    model = T5(TINY, rng=np.random.default_rng(0))
    other = np.where(KNOWN, SOURCE, (SOURCE + 1) % 11)
    target = np.maximum(LABELS, 0)
    assert np.array_equal(model(SOURCE, target, source_mask=KNOWN), model(other, target, source_mask=KNOWN))
    assert not np.allclose(model(SOURCE, target), model(other, target))


def test_recomputed_gradients_have_the_same_bits():
    model, noise = T5(dataclasses.replace(V1_1, dropout=0.3), rng=np.random.default_rng(0)), Noise(seed=2, step=7)
    results = [flatten(model.loss(SOURCE, LABELS, source_mask=KNOWN, noise=noise, run=run)[1]()) for run in ("keep", "recompute")]
    assert results[0].keys() == model.parameters().keys()
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


@pytest.mark.parametrize("config", [TINY, V1_1], ids=["T5", "T5 v1.1"])
def test_frozen_parameters_get_no_gradient(config):
    model = T5(config)
    model.freeze("tokens.*", "head.*", "encoder.0.*", "encoder_positions", "decoder_positions")
    assert flatten(model.loss(SOURCE, LABELS)[1]()).keys() == model.parameters().keys()


@pytest.mark.parametrize(("change", "message"), [
    (dict(head_width=0), "head_width as an integer >= 1"),
    (dict(buckets=3), "buckets as an integer >= 4"),
    (dict(max_distance=4), "max_distance as an integer >= 5"),
    (dict(tied=1), "tied as True or False"),
    (dict(start=11), "start in \\[0, 10\\]"),
    (dict(padding=0.5), "padding as an integer"),
    (dict(decoder_layers=0), "decoder_layers as an integer >= 1"),
    (dict(dropout=1.5), "dropout in \\[0, 1\\]"),
    (dict(norm_eps=0), "norm_eps > 0"),
])
def test_what_is_no_config_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
