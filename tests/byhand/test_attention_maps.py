"""The weights shown are those that the model computed with, whatever its attention is."""

import dataclasses

import numpy as np
import pytest

from byhand import attention_maps as maps_file
from byhand.attention_maps import attention_maps
from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from numpy_impl.layers import multi_head_attention
from numpy_impl.layers.multi_head_attention import MultiHeadAttention
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama

SIZES = dict(vocabulary=11, max_length=12, d_model=12, n_layers=2, n_heads=3, d_hidden=20)
IDS = np.random.default_rng(1).integers(0, 11, (1, 10))


def test_of_gpt2_they_are_those_of_transformers():
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    from byhand.hugging_face.gpt2 import gpt2_from_hugging_face

    config = transformers.GPT2Config(vocab_size=11, n_positions=12, n_embd=12, n_layer=2, n_head=3, n_inner=20, attn_implementation="eager")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.4)
    wanted = theirs(input_ids=torch.tensor(IDS), output_attentions=True).attentions
    model = GPT2(GPT2Config(**SIZES), dtype=np.float64)
    model.load_state_dict(gpt2_from_hugging_face({name: value.detach().numpy() for name, value in theirs.state_dict().items()}))
    found = attention_maps(model, IDS)
    assert [entry.layer for entry in found] == ["blocks.0.attn", "blocks.1.attn"]
    for entry, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(entry.weights, want[0].detach().numpy(), rtol=0, atol=1e-12)


def test_both_ways_to_the_weights_are_one(monkeypatch):
    model = Decoder(DecoderConfig(**SIZES, positions="alibi"), dtype=np.float64, rng=np.random.default_rng(0))
    by_weights = attention_maps(model, IDS)
    monkeypatch.setattr(maps_file, "scaled_dot_product", None)          # no call is plain: the identity as value, for all
    for one, other in zip(by_weights, attention_maps(model, IDS), strict=True):
        np.testing.assert_allclose(one.weights, other.weights, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("choices", "sees"), [
    (dict(), lambda t, s: s <= t),
    (dict(attention="window", window=3), lambda t, s: (t - 3 < s) & (s <= t)),
    (dict(attention="strided", stride=4, local=2), lambda t, s: (s <= t) & ((t - s < 2) | ((t - s) % 4 == 0))),
    (dict(attention="linear"), lambda t, s: s <= t),
    (dict(positions="rotary"), lambda t, s: s <= t),
], ids=["full", "window", "strided", "linear", "rotary"])
def test_a_row_weighs_the_keys_that_it_sees(choices, sees):
    model = Decoder(DecoderConfig(**SIZES, **choices), rng=np.random.default_rng(0))
    for entry in attention_maps(model, IDS):
        assert entry.weights.shape == (3, 10, 10)
        assert np.array_equal(entry.weights > 0, np.broadcast_to(np.fromfunction(sees, (10, 10)), (3, 10, 10)))
        np.testing.assert_allclose(entry.weights.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_grouped_heads_each_have_weights(window):
    config = LlamaConfig(vocabulary=11, max_length=12, d_model=16, n_layers=1, n_heads=4, n_kv_heads=2, d_hidden=20, window=window)
    (entry,) = attention_maps(Llama(config, rng=np.random.default_rng(0)), IDS)
    assert entry.weights.shape == (4, 10, 10) and len({head.tobytes() for head in entry.weights}) == 4
    assert np.array_equal(entry.weights[0] > 0, np.tri(10, dtype=bool) & ~np.tri(10, k=-(window or 10), dtype=bool))


def test_a_context_of_its_own_makes_wide_rows():
    layer = MultiHeadAttention(4, 2, rng=np.random.default_rng(0))
    (entry,) = attention_maps(layer, np.ones((1, 3, 4), np.float32), np.ones((1, 5, 4), np.float32))
    assert entry.layer == "MultiHeadAttention" and entry.weights.shape == (2, 3, 5)


def test_it_leaves_no_trace_and_changes_no_result():
    model = GPT2(GPT2Config(**SIZES), rng=np.random.default_rng(0))
    before, function = model(IDS), multi_head_attention.scaled_dot_product
    attention_maps(model, IDS)
    with pytest.raises(ValueError, match="positions below 12"):
        attention_maps(model, np.zeros((1, 13), dtype=np.int64))
    assert np.array_equal(model(IDS), before) and multi_head_attention.scaled_dot_product is function
    assert all("forward" not in vars(module) for _, module in maps_file._modules(model, ""))


def test_weights_that_do_not_make_the_output_are_refused(monkeypatch):
    def wrong(query, key, bias=None, **options):
        p, backward = function(query, key, bias, **options)
        return p.swapaxes(-1, -2), backward

    function = maps_file.attention_weights
    monkeypatch.setattr(maps_file, "attention_weights", wrong)
    with pytest.raises(ValueError, match=r"a weighted sum of their values; blocks\.0\.attn is none"):
        attention_maps(GPT2(GPT2Config(**SIZES), rng=np.random.default_rng(0)), IDS)


def test_several_sequences_are_refused():
    model = GPT2(dataclasses.replace(GPT2Config(**SIZES), n_layers=1))
    with pytest.raises(ValueError, match="a batch of one sequence"):
        attention_maps(model, np.zeros((2, 4), dtype=np.int64))
