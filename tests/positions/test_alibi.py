"""Linear biases against Bloom's tensor, and the slopes that the paper names."""

import numpy as np
import pytest
import torch

from numpy_impl.positions.alibi import alibi_bias, alibi_slopes


def test_eight_and_sixteen_heads_have_the_slopes_of_the_paper():
    # "For our models that have 8 heads … 1/2, 1/4, …, 1/2⁸. For 16 heads … 1/√2, 1/2, 1/(2√2), …, 1/2⁸" (section 3)
    assert np.array_equal(alibi_slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(alibi_slopes(16, dtype=np.float64), 0.5 ** np.arange(0.5, 8.5, 0.5), rtol=1e-15)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 7, 8, 12, 20, 31, 32, 71, 112])
def test_agrees_with_bloom(heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    keys = 9
    theirs = bloom.build_alibi_tensor(torch.ones(1, keys), heads, torch.float32).numpy()         # (H, 1, S): slope · s
    np.testing.assert_allclose(alibi_slopes(heads), theirs[:, 0, 1], rtol=1e-6)
    # Each row of ours is theirs less a constant, which a softmax does not see.
    last = alibi_bias(heads, queries=1, keys=keys)
    np.testing.assert_allclose(last, theirs - theirs[..., -1:], rtol=1e-5, atol=1e-6)


def test_the_last_query_stands_beside_the_last_key():
    whole, part = alibi_bias(3, queries=9, keys=9), alibi_bias(3, queries=4, keys=9)
    assert np.array_equal(whole[:, 5:], part)
    assert np.array_equal(alibi_bias(3, queries=6, keys=2)[:, :4], np.full((3, 4, 2), -np.inf))      # these queries stand before any key
