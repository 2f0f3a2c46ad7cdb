"""Rotary positions against transformers' Llama, GPT-NeoX and GPT-J, and the permutation of rows against whole attention scores."""

import numpy as np
import pytest
import torch

from numpy_impl.positions.rotary import rotary, rotary_frequencies, rotary_table, to_half_split, to_interleaved

B, H, T, E, START = 2, 3, 7, 16, 5


def drawn(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def table(width, dtype=np.float64):
    return rotary_table(np.arange(START, START + T), frequencies=rotary_frequencies(width), dtype=dtype)


def test_half_split_is_llamas():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = pytest.importorskip("transformers").LlamaConfig(hidden_size=H * E, num_attention_heads=H, head_dim=E)
    x, dy = drawn(B, H, T, E), drawn(B, H, T, E)[::-1]
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.tensor(x), torch.arange(START, START + T)[None])
    leaf = torch.tensor(x, requires_grad=True)
    want, _ = llama.apply_rotary_pos_emb(leaf, leaf.detach(), cos, sin)
    want.backward(torch.tensor(dy.copy()))
    ours = table(E)
    y, backward = rotary(x, cos=ours.cos, sin=ours.sin)
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-5)          # theirs computes its angles in float32
    np.testing.assert_allclose(backward(dy), leaf.grad, rtol=0, atol=1e-5)


def test_partial_half_split_is_gpt_neox():
    neox = pytest.importorskip("transformers.models.gpt_neox.modeling_gpt_neox")
    x, (cos, sin) = drawn(B, H, T, E), table(6)
    wide = (torch.tensor(np.concatenate([part, part], -1))[None] for part in (cos, sin))
    want, _ = neox.apply_rotary_pos_emb(torch.tensor(x), torch.tensor(x), *wide)
    np.testing.assert_allclose(rotary(x, cos=cos, sin=sin)[0], want, rtol=0, atol=1e-12)


def test_partial_interleaved_is_gpt_j():
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    x, width = drawn(B, T, H, E), 6                                          # GPT-J turns before it transposes heads and tokens
    sin, cos = gptj.create_sinusoidal_positions(START + T, width)[None, START:].chunk(2, -1)
    turned = gptj.apply_rotary_pos_emb(torch.tensor(x[..., :width]), sin, cos)
    want = np.concatenate([turned, x[..., width:]], -1)
    ours = table(width)
    y, _ = rotary(x.swapaxes(1, 2), cos=ours.cos, sin=ours.sin, interleaved=True)
    np.testing.assert_allclose(y.swapaxes(1, 2), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [E, 6])
def test_permuted_projections_give_the_same_scores_in_the_other_layout(width):
    rng = np.random.default_rng(1)
    x, (cos, sin) = rng.standard_normal((T, 10)), table(width)
    query_weight, key_weight = rng.standard_normal((2, H * E, 10))

    def scores(query_weight, key_weight, interleaved):
        query, key = ((x @ w.T).reshape(T, H, E).swapaxes(0, 1) for w in (query_weight, key_weight))
        query, key = (rotary(part, cos=cos, sin=sin, interleaved=interleaved)[0] for part in (query, key))
        return query @ key.swapaxes(-1, -2)

    want = scores(query_weight, key_weight, interleaved=False)
    permuted = (to_interleaved(w, heads=H, width=width) for w in (query_weight, key_weight))
    np.testing.assert_allclose(scores(*permuted, interleaved=True), want, rtol=1e-12)
    assert np.abs(scores(query_weight, key_weight, interleaved=True) - want).max() > 1


def test_half_split_rows_are_those_of_transformers_llama_conversion():
    weight = drawn(H * E, 10)
    want = torch.tensor(weight).view(H, E // 2, 2, 10).transpose(1, 2).reshape(H * E, 10)    # its `permute`
    assert np.array_equal(to_half_split(weight, heads=H), want)


def test_a_head_that_is_a_view_keeps_its_layout():
    # Heads split from (B, T, H · E) are merged again after attention: only this layout merges without a copy.
    x, (cos, sin) = drawn(B, T, H, E).swapaxes(1, 2), table(E)
    y, backward = rotary(x, cos=cos, sin=sin)
    assert y.strides == backward(x).strides == x.strides


def test_far_positions_are_exact_in_float32():
    frequencies = rotary_frequencies(8)
    cos = rotary_table(np.array([1_000_003]), frequencies=frequencies).cos
    exact = np.cos(1_000_003 * frequencies)
    assert np.abs(cos - exact).max() < 1e-7                                 # angles in float32 would be off by 0.03
