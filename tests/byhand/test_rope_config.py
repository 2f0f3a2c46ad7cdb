"""Rope configurations: reading and writing both shapes of Hugging Face's files, and what is refused."""

import dataclasses

import pytest

from byhand.configs.rope import ROPE_TYPES, RopeConfig

OURS = [
    RopeConfig(width=64),
    RopeConfig(width=32, head_width=80, base=500_000.0),
    RopeConfig(width=64, type="linear", factor=4.0),
    RopeConfig(width=64, type="dynamic", factor=2.0, original_length=2048),
    RopeConfig(width=64, type="yarn", factor=4.0, original_length=4096),
    RopeConfig(width=64, type="yarn", factor=32.0, original_length=4096, beta_fast=32.0, beta_slow=1.0, truncate=False, base=150_000.0),
    RopeConfig(width=64, type="yarn", factor=40.0, original_length=4096, mscale=0.707, mscale_all_dim=0.707),
    RopeConfig(width=64, type="yarn", factor=4.0, original_length=4096, attention_factor=1.0),
    RopeConfig(width=64, type="llama3", factor=8.0, original_length=8192, low_freq_factor=1.0, high_freq_factor=4.0, base=500_000.0),
    RopeConfig(width=4, head_width=6, type="longrope", factor=32.0, original_length=4096, short_factor=[1.0, 1.5], long_factor=[1.0, 40.0]),
    RopeConfig(width=4, type="longrope", attention_factor=1.2, original_length=4096, short_factor=[1, 1], long_factor=[2, 3], factor=2.0),
]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("config", OURS, ids=lambda c: c.type)
def test_what_is_written_is_read_back(config, version):
    written = config.to_hugging_face(version=version)
    assert ("rope_parameters" in written) == (version == 5)
    assert RopeConfig.from_hugging_face({"model_type": "llama", "hidden_size": 99, "vocab_size": 7} | written) == config


@pytest.mark.parametrize("config", OURS, ids=lambda c: c.type)
def test_a_config_survives_being_written_down(config):
    assert RopeConfig.from_dict(dataclasses.asdict(config)) == config
    hash(config)


def test_every_share_of_a_head_is_read_back():
    for head_width in range(2, 260):
        for width in range(2, head_width + 1, 2):
            share = RopeConfig(width=width, head_width=head_width).partial_rotary_factor
            assert int(head_width * share) == width and share <= 1


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
FILES = [
    # Llama-2-7B, before there was a rope_theta
    (dict(hidden_size=4096, num_attention_heads=32, rope_scaling=None), RopeConfig(width=128)),
    # Llama-3.1-8B
    (dict(hidden_size=4096, num_attention_heads=32, rope_theta=500000.0, max_position_embeddings=131072, rope_scaling=dict(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_type="llama3")),
     RopeConfig(width=128, base=5e5, type="llama3", factor=8.0, original_length=8192, low_freq_factor=1.0, high_freq_factor=4.0)),
    # Phi-3-mini-128k, as it was first published; the factor is the ratio of the lengths
    (dict(hidden_size=4, num_attention_heads=1, original_max_position_embeddings=4096, max_position_embeddings=131072,
          rope_scaling=dict(type="su", short_factor=[1, 2], long_factor=[3, 4])),
     RopeConfig(width=4, type="longrope", factor=32.0, original_length=4096, short_factor=[1, 2], long_factor=[3, 4])),
    # DeepSeek-V2-Lite: the rotary part of a head has a width of its own
    (dict(hidden_size=2048, num_attention_heads=16, qk_rope_head_dim=64, max_position_embeddings=163840, rope_scaling=dict(
        type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707, original_max_position_embeddings=4096)),
     RopeConfig(width=64, type="yarn", factor=40, original_length=4096, mscale=0.707, mscale_all_dim=0.707)),
    # gpt-oss, version 5
    (dict(hidden_size=2880, num_attention_heads=64, head_dim=64, rope_parameters=dict(
        rope_type="yarn", rope_theta=150000, factor=32.0, beta_fast=32.0, truncate=False, original_max_position_embeddings=4096)),
     RopeConfig(width=64, base=150000, type="yarn", factor=32.0, original_length=4096, truncate=False)),
    # Qwen2.5's advice for long texts: the old key, or both; no trained length means the model's own
    (dict(head_dim=64, rope_scaling=YARN | dict(rope_type="yarn")), RopeConfig(width=64, type="yarn", factor=4.0, original_length=32768)),
    (dict(head_dim=64, max_position_embeddings=32768, rope_scaling=dict(type="yarn", factor=4.0)),
     RopeConfig(width=64, type="yarn", factor=4.0, original_length=32768)),
    # GPT-NeoX's names
    (dict(hidden_size=64, num_attention_heads=1, rotary_pct=0.25, rotary_emb_base=500), RopeConfig(width=16, head_width=64, base=500)),
]


@pytest.mark.parametrize(("file", "config"), FILES)
def test_published_files(file, config):
    assert RopeConfig.from_hugging_face(file) == config


def test_the_dictionary_alone():
    want = RopeConfig(width=64, type="yarn", factor=4.0, original_length=32768)
    assert RopeConfig.from_hugging_face(YARN, head_width=64) == want
    assert RopeConfig.from_hugging_face({"type": "dynamic", "factor": 2.0}, head_width=64, max_length=512).original_length == 512
    assert RopeConfig.from_hugging_face({"rope_theta": 5.0}, head_width=64) == RopeConfig(width=64, base=5.0)
    assert RopeConfig.from_hugging_face({}, head_width=64) == RopeConfig(width=64)


def test_layers_of_several_types():
    local, far = dict(rope_type="default", rope_theta=10000.0), dict(rope_type="linear", rope_theta=1e6, factor=8.0)
    gemma = dict(head_dim=64, rope_parameters=dict(sliding_attention=local, full_attention=far))
    assert RopeConfig.from_hugging_face(gemma, layer_type="full_attention") == RopeConfig(width=64, base=1e6, type="linear", factor=8.0)
    assert RopeConfig.from_hugging_face(gemma, layer_type="sliding_attention") == RopeConfig(width=64)
    with pytest.raises(ValueError, match="layer_type from 'sliding_attention', 'full_attention'; got layer_type=None"):
        RopeConfig.from_hugging_face(gemma)
    with pytest.raises(ValueError, match=r"\(did you mean 'full_attention'\?\)"):
        RopeConfig.from_hugging_face(gemma, layer_type="full_atention")


@pytest.mark.parametrize(("rope", "message"), [
    (dict(rope_type="yarm"), r"rope_type from .* got rope_type='yarm' \(did you mean 'yarn'\?\)"),
    (dict(type="mrope"), r"rope_type from 'default', 'linear'.*; got rope_type='mrope'"),
    (dict(rope_type="linear", fctor=2.0), r"known rope parameters; got 'fctor' \(did you mean 'factor'\?\)"),
    (dict(rope_type="default", mrope_section=[16, 24, 24]), r"known rope parameters; got 'mrope_section', none of rope_type, type"),
    (dict(rope_type="linear"), r"factor with rope_type 'linear'; got only rope_type"),
    (dict(rope_type="llama3", factor=8.0), r"original_max_position_embeddings, low_freq_factor, high_freq_factor with rope_type 'llama3'"),
    (dict(rope_type="dynamic", factor=8.0), r"original_max_position_embeddings with rope_type 'dynamic'"),
    (dict(rope_type="linear", type="yarn", factor=2.0), r"rope_type and type to agree; got rope_type='linear', type='yarn'"),
    (dict(rope_type="linear", factor=2.0, beta_fast=32.0), r"options of type 'linear', which are factor; got beta_fast=32.0, an option of"),
    (dict(factor=2.0), r"options of type 'default', which are none; got factor=2.0, an option of type 'linear' and 'ntk' and"),
    (dict(rope_type="linear", factor=0.5), r"factor >= 1 and finite; got factor=0.5"),
    (dict(rope_type="linear", factor="2"), r"factor >= 1 and finite; got factor='2'"),
    (dict(rope_type="default", rope_theta=1.0), r"base > 1"),
    (dict(rope_type="default", partial_rotary_factor=1.5), r"partial_rotary_factor in \[0, 1\]"),
    (YARN | dict(beta_fast=1, beta_slow=2), r"beta_slow <= beta_fast"),
    (YARN | dict(beta_fast=0.0), r"beta_fast > 0 and finite"),
    (YARN | dict(mscale=1.0), r"mscale and mscale_all_dim, both or neither"),
    (YARN | dict(mscale=1.0, mscale_all_dim=1.0, attention_factor=1.0), r"attention_factor or mscale, not both"),
    (YARN | dict(truncate=1), r"truncate as true or false"),
    (YARN | dict(original_max_position_embeddings=1), r"original_length as an integer >= 2"),
    (dict(rope_type="llama3", factor=8.0, original_max_position_embeddings=8192, low_freq_factor=4.0, high_freq_factor=1.0),
     r"low_freq_factor < high_freq_factor"),
    (dict(type="longrope", short_factor=[1], long_factor=[1, 2], factor=2.0, original_max_position_embeddings=8),
     r"short_factor with a factor for each of 2 pairs, half of width 4"),
    (dict(type="longrope", short_factor=[1, 1], long_factor=[1, 0], factor=2.0, original_max_position_embeddings=8),
     r"long_factor > 0 and finite; got long_factor=0"),
    (dict(type="longrope", short_factor=[1, 1], long_factor=3.0, factor=2.0, original_max_position_embeddings=8),
     r"long_factor as a list of numbers"),
    (dict(type="longrope", short_factor=[1, 1], long_factor=[1, 2], original_max_position_embeddings=8), r"factor or attention_factor"),
])
def test_bad_parameters_are_refused(rope, message):
    for shape in (dict(rope_parameters=rope), dict(rope_scaling=rope)):
        with pytest.raises(ValueError, match=rf"^RopeConfig(\.from_hugging_face)? needs {message}"):
            RopeConfig.from_hugging_face(dict(head_dim=4) | shape)


@pytest.mark.parametrize(("file", "message"), [
    (dict(model_type="llama"), r"head_width=, or a config with head_dim, or with hidden_size and num_attention_heads"),
    (dict(hidden_size=7, num_attention_heads=2), r"hidden_size to be a multiple of num_attention_heads"),
    (dict(head_dim=4, rope_theta=5.0, rope_parameters=dict(rope_type="default", rope_theta=6.0)),
     r"rope_parameters.rope_theta and rope_theta to agree; got rope_parameters.rope_theta=6.0, rope_theta=5.0"),
    (dict(head_dim=4, rope_scaling=YARN, rope_parameters=dict(rope_type="default")), r"rope_parameters and rope_scaling to agree"),
    (dict(head_dim=4, rope_scaling=YARN, original_max_position_embeddings=5),
     r"rope_parameters.original_max_position_embeddings and original_max_position_embeddings to agree"),
    (dict(head_dim=4, max_position_embeddings=64, rope_scaling=dict(type="dynamic", factor=2.0, original_max_position_embeddings=32)),
     r"original_max_position_embeddings and max_position_embeddings to agree"),
    (dict(head_dim=2, max_position_embeddings=64, rope_scaling=dict(type="dynamic", factor=2.0)), r"width as an integer >= 4"),
    (dict(head_dim=10, partial_rotary_factor=0.5), r"an even width, of whole pairs; got width 5"),
    (dict(head_dim=4, rope_scaling=[1]), r"rope_scaling as a dictionary"),
])
def test_bad_files_are_refused(file, message):
    with pytest.raises(ValueError, match=f"needs {message}"):
        RopeConfig.from_hugging_face(file)


@pytest.mark.parametrize(("options", "message"), [
    (dict(width=5), "an even width, of whole pairs"),
    (dict(width=0), "width as an integer >= 2"),
    (dict(width=8, head_width=4), "width <= head_width"),
    (dict(width=2, type="ntk", factor=2.0), "width as an integer >= 4"),
    (dict(width=8, type="ntk"), "factor with type 'ntk'; got no factor"),
    (dict(width=8, type="llama"), r"type from .* \(did you mean 'llama3'\?\)"),
])
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^RopeConfig needs {message}"):
        RopeConfig(**options)


def test_only_two_types_read_the_length():
    assert [kind for kind in ROPE_TYPES if any(c.type == kind and c.reads_length for c in OURS)] == ["dynamic", "longrope"]
