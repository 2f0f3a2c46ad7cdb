"""The decoder is GPT-2 or Llama where its choices are theirs, never looks ahead, and every architecture can learn."""

import dataclasses

import numpy as np
import pytest

from byhand.configs.decoder import DecoderConfig
from byhand.configs.llama import LlamaConfig
from numpy_impl.layers.module import flatten
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.llama import Llama
from numpy_impl.optim.adamw import AdamW

TINY = DecoderConfig(vocabulary=11, max_length=12, d_model=12, n_layers=2, n_heads=3, d_hidden=20)
ARCHITECTURES = [
    *(dict(positions=positions) for positions in ("learned", "sinusoidal", "rotary", "alibi", "relative", "none")),
    dict(norm="post"), dict(norm="none"), dict(norm_type="rms"),
    dict(attention="window", window=3), dict(attention="strided", stride=3, local=2), dict(attention="linear"),
    dict(activation="mish"), dict(activation="swiglu", bias=True),
]
named = pytest.mark.parametrize("choices", ARCHITECTURES, ids=lambda choices: "-".join(map(str, choices.values())))


def test_with_rotary_positions_rms_norms_and_swiglu_it_is_llama():
    # (GPT-2, which transformers' own is held against, is an equality of the parity case)
    decoder = Decoder(dataclasses.replace(TINY, positions="rotary", norm_type="rms", activation="swiglu"), dtype=np.float64)
    llama = Llama(LlamaConfig(vocabulary=11, max_length=12, d_model=12, n_layers=2, n_heads=3, d_hidden=20, tied=True), dtype=np.float64)
    for array in decoder.parameters().values():
        array[...] = np.random.default_rng(array.size).standard_normal(array.shape)
    llama.load_state_dict(decoder.state_dict())
    ids = np.random.default_rng(0).integers(0, 11, (2, 12))
    np.testing.assert_allclose(decoder(ids), llama(ids), rtol=0, atol=1e-12)
    grads, wanted = (flatten(model.loss(ids, np.roll(ids, -1, 1))[1]()) for model in (decoder, llama))
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=1e-12, err_msg=name)


@named
def test_a_token_is_not_seen_before_its_place(choices):
    model = Decoder(dataclasses.replace(TINY, **choices), dtype=np.float64, rng=np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 11, (1, 12))
    other = ids.copy()
    other[0, 7] = (ids[0, 7] + 1) % 11
    before, after = model(ids), model(other)
    np.testing.assert_allclose(before[:, :7], after[:, :7], rtol=0, atol=1e-14)
    assert not np.allclose(before[:, 7], after[:, 7], rtol=0, atol=1e-6)


@named
def test_it_learns_a_sentence_by_heart(choices):
    model = Decoder(dataclasses.replace(TINY, **choices), rng=np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    ids = np.array([[1, 5, 2, 9, 3, 8, 7, 0]])
    for _ in range(120):
        loss, backward = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.step(flatten(backward()))
    assert float(loss) < 0.1
    assert np.array_equal(model(ids[:, :-1]).argmax(-1), ids[:, 1:])


def test_without_positions_a_last_query_does_not_see_their_order():
    model = Decoder(dataclasses.replace(TINY, positions="none", n_layers=1), dtype=np.float64, rng=np.random.default_rng(0))
    ids = np.array([[4, 1, 2, 3, 7]])
    np.testing.assert_allclose(model(ids)[0, -1], model(ids[:, [2, 0, 3, 1, 4]])[0, -1], rtol=0, atol=1e-12)


def test_only_learned_positions_end():
    ids = np.zeros((1, 13), dtype=np.int64)
    for positions in ("sinusoidal", "rotary", "alibi", "relative", "none"):
        assert Decoder(dataclasses.replace(TINY, positions=positions))(ids).shape == (1, 13, 11)
    with pytest.raises(ValueError, match="positions below 12"):
        Decoder(TINY)(ids)


@pytest.mark.parametrize(("choices", "complaint"), [
    (dict(n_heads=5), "d_model to be a multiple of n_heads"),
    (dict(positions="learnt"), "did you mean 'learned'"),
    (dict(norm="layer"), "norm from 'pre', 'post', 'none'"),
    (dict(attention="window"), "window as an integer >= 1; got window=None"),
    (dict(attention="strided", local=2), "stride as an integer >= 1; got stride=None"),
    (dict(window=4), "attention='window' with window; got attention='full', window=4"),
    (dict(attention="linear", positions="relative"), "attention='full' with positions that add to its scores"),
    (dict(positions="rotary", d_model=9), "heads of an even width"),
    (dict(dropout=2.0), r"dropout in \[0, 1\]"),
    (dict(bias=1), "bias as True or False"),
])
def test_what_does_not_go_together_is_refused(choices, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(TINY, **choices)


def test_a_config_survives_a_dictionary():
    config = dataclasses.replace(TINY, attention="strided", stride=3)
    assert DecoderConfig.from_dict(dataclasses.asdict(config)) == config
