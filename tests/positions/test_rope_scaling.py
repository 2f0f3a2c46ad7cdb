"""Every rope scaling against transformers' own functions, which are made to compute in float64 so that they can be held to 1e-12.

Faults of the oracle that the drawn parameters avoid:

- yarn: where T < 2π · beta_slow no pair made beta_slow turns, and all should be interpolated; its ramp then runs backwards and keeps
  them all. Where all pairs make more than beta_fast turns it interpolates them all.
- yarn: mscale without mscale_all_dim (or with 0) is ignored, where the authors of these options multiply by 0.1 · mscale · ln s + 1.
- version 4, longrope: original_max_position_embeddings is read beside rope_scaling only; in it, it is ignored.
- version 5 has no function for "default": each model has its own, in float32.
"""

import contextlib
import math
import types

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from byhand.configs.rope import RopeConfig
from numpy_impl.positions.rope_scaling import rope_frequencies
from torch_impl.positions.rope_scaling import rope_frequencies as rope_frequencies_torch

transformers = pytest.importorskip("transformers")
rope_utils = pytest.importorskip("transformers.modeling_rope_utils")

VERSION = 5 if int(transformers.__version__.split(".")[0]) >= 5 else 4


@contextlib.contextmanager
def in_float64():
    """transformers asks for torch.float by name; here that name means float64."""

    class Wide(types.ModuleType):
        float = float32 = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rope_utils, "torch", Wide("torch"))
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def theirs(config, length=None):
    """(frequencies, attention factor) that transformers computes from the config that we write for it."""
    written = dict(max_position_embeddings=4096, hidden_size=64, num_attention_heads=4) | config.to_hugging_face(version=VERSION)
    model = transformers.LlamaConfig(**written)
    assert RopeConfig.from_hugging_face(model.to_dict()) == config
    with in_float64():
        frequencies, attention_factor = rope_utils.ROPE_INIT_FUNCTIONS[config.type](model, "cpu", seq_len=length)
    assert frequencies.dtype == torch.float64
    return frequencies.numpy(), attention_factor


def check(config, length=None):
    want, attention_factor = theirs(config, length)
    for ours in (rope_frequencies, rope_frequencies_torch):
        got = ours(config, length=length)
        np.testing.assert_allclose(np.asarray(got.frequencies), want, rtol=1e-12, atol=0)
        assert got.attention_factor == pytest.approx(attention_factor, rel=1e-14)


FACTOR = st.floats(1, 64)
TRAINED = st.integers(16, 20_000)
LENGTH = st.none() | st.integers(1, 100_000)


@st.composite
def rope(draw, type, **options):
    """A config of this type with a drawn width, share of the head and base."""
    width = 2 * draw(st.integers(2, 32))
    head_width = width + draw(st.sampled_from([0, 0, 2, 16, 33]))
    base = draw(st.sampled_from([100.0, 10_000.0, 500_000.0]) | st.floats(10, 1e7))
    drawn = {name: draw(value) for name, value in options.items()}
    return RopeConfig(type=type, width=width, head_width=head_width, base=base, **{k: v for k, v in drawn.items() if v is not None})


@given(rope("linear", factor=FACTOR))
def test_linear(config):
    check(config)


@given(rope("dynamic", factor=FACTOR, original_length=TRAINED), LENGTH)
def test_dynamic(config, length):
    check(config, length)


@given(rope("llama3", factor=FACTOR, original_length=TRAINED, low_freq_factor=st.floats(0.1, 3), high_freq_factor=st.floats(3.5, 40)))
def test_llama3(config):
    check(config)


@st.composite
def attention(draw):
    """What the attention factor follows from: nothing, its own option, or the two scales."""
    return draw(st.sampled_from([{}, dict(attention_factor=draw(st.floats(0.5, 2))),
                                 dict(mscale=draw(st.floats(0.1, 2)), mscale_all_dim=draw(st.floats(0.1, 2)))]))


@given(rope("yarn", factor=FACTOR, original_length=TRAINED, beta_fast=st.none() | st.floats(8, 64), beta_slow=st.none() | st.floats(0.1, 8),
            truncate=st.sampled_from([None, True, False])), attention())
def test_yarn(config, scales):
    config = RopeConfig(**vars(config) | scales)
    fast, slow = (config.width * math.log(config.original_length / (2 * math.pi * beta)) / (2 * math.log(config.base))
                  for beta in (config.beta_fast, config.beta_slow))
    assume(slow >= 0)
    assume(fast <= config.width - 1)
    assume(config.truncate or slow - fast > 1e-6)
    check(config)


@given(st.data(), st.integers(1, 32), LENGTH)
def test_longrope(data, pairs, length):
    factors = st.lists(st.floats(0.5, 64), min_size=pairs, max_size=pairs)
    trained = data.draw(st.integers(16, 20_000))
    factor = data.draw(st.integers(1, 64).map(float))    # version 4 makes it of two lengths, which are integers
    check(RopeConfig(width=2 * pairs, type="longrope", factor=factor, original_length=trained, short_factor=data.draw(factors),
                     long_factor=data.draw(factors), attention_factor=data.draw(st.none() | st.floats(0.5, 2))), length)


@given(rope("default"))
def test_default(config):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = RopeConfig(width=config.width, base=config.base)     # Llama turns whole heads
    module = LlamaRotaryEmbedding(transformers.LlamaConfig(**config.to_hugging_face(version=VERSION)))
    np.testing.assert_allclose(rope_frequencies(config).frequencies, module.inv_freq, rtol=1e-5)
    assert rope_frequencies(config).attention_factor == module.attention_scaling == 1.0


def test_static_ntk_is_dynamic_ntk_at_one_length():
    """transformers has no static type; its dynamic one with factor s at twice the trained length slows the slowest pair s + 1 times."""
    dynamic = RopeConfig(width=32, type="dynamic", factor=3.0, original_length=100)
    static = RopeConfig(width=32, type="ntk", factor=4.0)
    np.testing.assert_allclose(rope_frequencies(static).frequencies, theirs(dynamic, 200)[0], rtol=1e-12)
    written = RopeConfig.from_hugging_face(static.to_hugging_face(version=VERSION))
    np.testing.assert_allclose(rope_frequencies(written).frequencies, rope_frequencies(static).frequencies, rtol=1e-12)


def test_published_models():
    """Numbers that can be found in print: Llama 3.1's bands, and the attention factors of Phi-3, Qwen and DeepSeek."""
    llama = dict(width=128, base=500_000.0)
    bands = dict(type="llama3", factor=8.0, original_length=8192, low_freq_factor=1.0, high_freq_factor=4.0)
    slowed = rope_frequencies(RopeConfig(**llama)).frequencies / rope_frequencies(RopeConfig(**llama, **bands)).frequencies
    assert (slowed[:29] == 1).all()                                   # wavelengths up to 2048 tokens
    assert (np.diff(slowed[28:36]) > 0).all()
    np.testing.assert_allclose(slowed[35:], 8, rtol=1e-12)            # and from 8192
    phi = RopeConfig(width=96, type="longrope", factor=32.0, original_length=4096, short_factor=[1.0] * 48, long_factor=[2.0] * 48)
    assert rope_frequencies(phi).attention_factor == pytest.approx(1.1902380714238083, rel=1e-15)
    qwen = RopeConfig(width=128, type="yarn", factor=4.0, original_length=32768)
    assert rope_frequencies(qwen).attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    deepseek = RopeConfig(width=64, type="yarn", factor=40.0, original_length=4096, mscale=1.0, mscale_all_dim=1.0)
    assert rope_frequencies(deepseek).attention_factor == 1.0


def test_interpolation_meets_no_new_angle():
    """What the schemes are for: over s · T tokens no slow pair turns further than it did over T."""
    trained, factor = 512, 8.0
    plain = rope_frequencies(RopeConfig(width=64)).frequencies
    unfinished = trained * plain < 2 * math.pi
    assert unfinished.sum() > 10
    options = dict(width=64, factor=factor, original_length=trained)
    llama3 = RopeConfig(type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, **options)
    for config in (RopeConfig(width=64, type="linear", factor=factor), RopeConfig(type="yarn", **options), llama3):
        scaled = rope_frequencies(config).frequencies
        assert (factor * trained * scaled[unfinished] <= trained * plain[unfinished] * (1 + 1e-12)).all(), config.type
    ntk = rope_frequencies(RopeConfig(width=64, type="ntk", factor=factor)).frequencies
    assert factor * trained * ntk[-1] == pytest.approx(trained * plain[-1])
    assert (factor * trained * ntk[unfinished][:-1] > trained * plain[unfinished][:-1]).all()    # and so it reaches less far
