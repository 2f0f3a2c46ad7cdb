"""Configurations: what they refuse, and what they fill in."""

import dataclasses

import pytest

from byhand.configs.gpt2 import GPT2_PRESETS, GPT2Config

SIZES = dict(vocabulary=5, max_length=4, d_model=6, n_layers=1, n_heads=2)


@pytest.mark.parametrize(("change", "message"), [
    (dict(vocabulary=0), r"vocabulary as an integer >= 1; got vocabulary=0"),
    (dict(max_length=-1), r"max_length as an integer >= 1"),
    (dict(d_model=6.0), r"d_model as an integer >= 1; got d_model=6.0"),
    (dict(n_layers=0), r"n_layers as an integer >= 1"),
    (dict(n_heads=4), r"d_model to be a multiple of n_heads; got d_model 6 of type int, n_heads 4 of type int"),
    (dict(d_hidden=0), r"d_hidden as an integer >= 1"),
    (dict(dropout=1.5), r"dropout in \[0, 1\]; got dropout=1.5"),
    (dict(norm_eps=0.0), r"norm_eps > 0 and finite"),
    (dict(activation=3), r"activation by name"),
    (dict(d_modle=6), r"known keys; got 'd_modle' \(did you mean 'd_model'\?\)"),
    (dict(tied=True), r"known keys; got 'tied', which is none of vocabulary, max_length"),
])
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^GPT2Config needs {message}"):
        GPT2Config.from_dict(SIZES | change)


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="a value for d_model, n_heads"):
        GPT2Config.from_dict({name: value for name, value in SIZES.items() if name not in ("d_model", "n_heads")})


@pytest.mark.parametrize("config", GPT2_PRESETS.values(), ids=GPT2_PRESETS)
def test_a_config_survives_being_written_down(config):
    assert GPT2Config.from_dict(dataclasses.asdict(config)) == config
    assert config.d_hidden == 4 * config.d_model
