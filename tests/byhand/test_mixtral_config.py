"""A Mixtral's configuration: what it refuses, that JSON gives it back, and counts of parameters, the published ones among them."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from byhand.configs.mixtral import MIXTRAL_PRESETS, MixtralConfig
from numpy_impl.models.mixtral import Mixtral

SIZES: dict[str, Any] = dict(vocabulary=5, max_length=4, d_model=4, n_layers=2, n_heads=2)


@pytest.mark.parametrize(("change", "message"), [
    (dict(k=9), r"k no larger than n_experts; got k 9 of type int, n_experts 8"),
    (dict(d_expert=0), r"d_expert as an integer >= 1; got d_expert=0"),
    (dict(d_shared=0), r"d_shared as an integer >= 1; got d_shared=0"),
    (dict(shared_gate=True), r"d_shared for a shared_gate"),
    (dict(dense=0), r"dense as a tuple of blocks; got dense 0 of type int"),
    (dict(dense=None), r"dense as a tuple of blocks; got dense None"),
    (dict(dense="0"), r"dense as a tuple of blocks; got dense '0'"),
    (dict(dense=(0.5,)), r"dense as an integer >= 0; got dense=0.5"),
    (dict(dense=(2,)), r"dense as blocks below n_layers=2"),
    (dict(groups=3), r"n_experts to be a multiple of groups"),
    (dict(groups=4, top_groups=1, k=3), r"enough experts in top_groups groups to choose k from"),
    (dict(dropped="lost"), r"dropped from 'zero', 'residual'"),
    (dict(balance=-0.1), r"balance in \[0, 1e\+09\]; got balance=-0.1"),
    (dict(balance=0.1, jointly=True, per_sequence=True), r"layers taken jointly or sequences apart, not both"),
])
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MixtralConfig(**SIZES | change)


def test_json_gives_it_back():
    configs = [*MIXTRAL_PRESETS.values(), MixtralConfig(**SIZES, dense=(1,), capacity_factor=0.5, top_groups=1, groups=2, d_shared=3)]
    for config in configs:
        assert MixtralConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert MixtralConfig(**SIZES | dict(dense=[1, 0])).dense == (1, 0)


@pytest.mark.parametrize(("name", "total", "active"), [
    ("mixtral-8x7b", 46_702_792_704, 12_879_925_248),               # as their safetensors files count; active as in the papers
    ("mixtral-8x22b", 140_630_071_296, 39_161_468_928),
    ("qwen1.5-moe-a2.7b", 14_315_784_192, 2_689_173_504),
    ("deepseek-moe-16b", 16_375_728_128, 2_828_650_496),
])
def test_the_parameters_of_published_models(name, total, active):
    assert (MIXTRAL_PRESETS[name].parameters, MIXTRAL_PRESETS[name].active_parameters) == (total, active)


@pytest.mark.parametrize("options", [
    dict(), dict(dense=(0, 0)), dict(noisy=True, correction=True), dict(d_shared=3, shared_gate=True, d_expert=5),
    dict(mlp_bias=True, dense=(1,), d_shared=3, tied=True, attention_bias="qkv"),
])
def test_the_parameters_of_a_model(options):
    config = MixtralConfig(**SIZES, **options)
    assert config.parameters == sum(array.size for array in Mixtral(config, rng=np.random.default_rng(0)).parameters().values())
