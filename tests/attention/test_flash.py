"""What the laws cannot say of flash attention: PyTorch as oracle, memory linear in T, scores beyond exp, what lies in skipped tiles."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.noise import Noise
from numpy_impl.attention.flash import flash_attention
from numpy_impl.attention.scaled_dot_product import scaled_dot_product


def arrays(t, s, lead=(2, 3), width=8, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((*lead, n, width)).astype(dtype) for n in (t, s, s, t)]


@pytest.mark.parametrize("t, s", [(5, 5), (3, 7), (7, 3), (97, 130), (193, 129)])
@pytest.mark.parametrize("window", [(None, None), (None, 0), (4, 0), (100, 20), (0, 0)])
def test_it_is_what_pytorch_computes(t, s, window):
    query, key, value, dy = arrays(t, s)
    y, backward = flash_attention(query, key, value, window=window)
    distance = torch.arange(s) - torch.arange(t)[:, None] - (s - t)
    seen = torch.ones(t, s, dtype=torch.bool)
    if window[0] is not None:
        seen &= distance >= -window[0]
    if window[1] is not None:
        seen &= distance <= window[1]
    leaves = [torch.tensor(array, requires_grad=True) for array in (query, key, value)]
    blind = ~seen.any(-1, keepdim=True)
    want = F.scaled_dot_product_attention(*leaves, attn_mask=seen | blind).masked_fill(blind, 0)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-13)
    for got, leaf in zip(backward(dy), leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad, rtol=0, atol=1e-12)


def test_a_window_of_no_neighbours_is_the_value_itself():
    query, key, value, dy = arrays(130, 130)
    y, backward = flash_attention(query, key, value, window=(0, 0))
    dquery, dkey, dvalue = backward(dy)
    np.testing.assert_allclose(y, value, rtol=1e-14)
    np.testing.assert_allclose(dvalue, dy, rtol=1e-14)
    np.testing.assert_allclose(np.abs(dquery).max() + np.abs(dkey).max(), 0, atol=1e-13)


@pytest.mark.parametrize("dtype, reach", [(np.float64, 1e3), (np.float32, 30)])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_far_beyond_exp(dtype, reach, sign):
    query, key, value, dy = arrays(70, 70, dtype=dtype)
    query, key, options = query * reach, np.abs(key) * reach, dict(causal=True, scale=sign / 3)
    query[..., ::2, :] = np.abs(query[..., ::2, :])                       # rows of large scores alone, of one sign
    want, plain_backward = scaled_dot_product(query, key, value, **options)
    got, backward = flash_attention(query, key, value, **options, tile=(16, 8))
    tolerance = 2e-9 if dtype is np.float64 else 2e-3                     # scores of 10⁶ and 10³, and their last bits
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
    np.testing.assert_allclose(backward(dy)[2], plain_backward(dy)[2], rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{"causal": True}, {"dropout": 0.1, "noise": Noise(seed=1)},
                                     {"window": (100, 100), "soft_cap": 5.0, "alibi_slopes": np.ones(1, dtype=np.float32)}])
def test_memory_grows_with_t_and_not_with_its_square(options):
    peaks = []
    for t in (512, 2048):
        query, key, value, dy = arrays(t, t, lead=(1,), width=16, dtype=np.float32)
        tracemalloc.start()
        _, backward = flash_attention(query, key, value, **options)
        backward(dy)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.2 * peaks[0]
    assert peaks[1] < 2048 * 2048                                         # less than a byte for every probability


def test_what_is_hidden_does_not_reach_the_output():
    query, key, value, _ = arrays(100, 300)
    for later in (key, value):
        y, _ = flash_attention(query, key, value, causal=True, tile=(50, 50))
        later[..., 250:, :] = np.nan                                      # seen by the last 50 queries alone, and in tiles of their own
        poisoned, _ = flash_attention(query, key, value, causal=True, tile=(50, 50))
        np.testing.assert_allclose(poisoned[..., :50, :], y[..., :50, :], rtol=0, atol=1e-14)
        assert np.isnan(poisoned[..., -1, :]).all()
        later[..., 250:, :] = 0
    key[..., 280:, :] = np.inf                                            # in a tile that others share, a key is hidden as well
    with np.errstate(invalid="ignore"):
        y, _ = flash_attention(query, key, value, causal=True, tile=(100, 300))
    assert np.isfinite(y[..., :80, :]).all()
