"""Transformer-XL's attention against XLNet's in transformers (which has Transformer-XL's no more), and against the paper's definition."""

import numpy as np
import pytest
import torch

from numpy_impl.attention.transformer_xl import transformer_xl_attention
from numpy_impl.positions.sinusoidal import sinusoidal

H, E = 3, 8


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "s"), [(6, 6), (4, 9), (70, 130)])
def test_it_is_xlnets_without_segments(t, s, causal):
    xlnet = pytest.importorskip("transformers.models.xlnet.modeling_xlnet")
    config = pytest.importorskip("transformers").XLNetConfig(d_model=H * E, n_head=H, d_inner=4, n_layer=1, dropout=0.0)
    theirs = xlnet.XLNetRelativeAttention(config).double().eval()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, H, n, E)) for n in (t, s, s, s + t)] + [rng.standard_normal((H, E)) for _ in range(2)]
    dy = rng.standard_normal((2, H, t, E))

    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    query, key, value, position_key = (leaf.permute(2, 0, 1, 3) for leaf in leaves[:4])
    del theirs.r_w_bias, theirs.r_r_bias
    theirs.r_w_bias, theirs.r_r_bias = leaves[4:]
    hidden = None
    if causal:
        hidden = torch.ones(t, s).triu(s - t + 1)[..., None, None].expand(t, s, 2, H).double()
    y = theirs.rel_attn_core(query, key, value, position_key, attn_mask=hidden).permute(1, 2, 0, 3)
    y.backward(torch.tensor(dy))

    query, key, value, position_key, u, v = arrays
    # Row j of theirs is of the distance S − j: one more at the far end, which no query has from any key.
    ours, backward = transformer_xl_attention(query, key, value, position_key[..., 1:, :], u, v, causal=causal)
    np.testing.assert_allclose(ours, y.detach(), rtol=0, atol=1e-12)
    dquery, dkey, dvalue, dposition_key, du, dv = backward(dy)
    assert not leaves[3].grad[..., 0, :].any()
    for got, leaf in zip((dquery, dkey, dvalue, dposition_key, du, dv), leaves, strict=True):
        want = leaf.grad[..., 1:, :] if leaf is leaves[3] else leaf.grad
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_remembered_keys_are_scored_as_the_paper_defines_it():
    # Section 3.3: a(i, j) = q_i·k_j + q_i·W r_(i−j) + u·k_j + v·W r_(i−j), for the keys j up to i; r is a table of sinusoids.
    rng = np.random.default_rng(1)
    t, s = 5, 12
    query, key, value = (rng.standard_normal((n, E)) for n in (t, s, s))
    u, v, weight = rng.standard_normal(E), rng.standard_normal(E), rng.standard_normal((E, E))
    r = sinusoidal(s, E, dtype=np.float64) @ weight.T                      # row d is of the distance d
    want = np.empty((t, E))
    for i in range(t):
        own = i + s - t
        scores = [query[i] @ key[j] + query[i] @ r[own - j] + u @ key[j] + v @ r[own - j] for j in range(own + 1)]
        p = np.exp(np.array(scores) / np.sqrt(E))
        want[i] = p / p.sum() @ value[:own + 1]
    y, _ = transformer_xl_attention(query, key, value, r[::-1], u, v, causal=True)
    np.testing.assert_allclose(y, want, rtol=1e-12)
