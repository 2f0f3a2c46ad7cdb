"""What the laws cannot say of top-k attention: the gathered form of it as oracle, ties, NaN."""

import numpy as np
import pytest
import torch

from numpy_impl.attention.top_k import top_k_attention
from torch_impl.attention.top_k import top_k_attention as twin


@pytest.mark.parametrize("k", [1, 4, 30])
def test_it_is_a_softmax_over_the_best_scores_gathered(k):
    rng = np.random.default_rng(0)
    query, key, value, dy = (rng.standard_normal((2, 3, 40, 8)) for _ in range(4))
    y, backward = top_k_attention(query, key, value, k=k)
    leaves = q, keys, v = [torch.tensor(x, requires_grad=True) for x in (query, key, value)]
    best, index = (q @ keys.mT / 8**0.5).topk(k)                                                 # (..., T, k)
    gathered = v.unsqueeze(-3).expand(2, 3, 40, 40, 8).gather(-2, index.unsqueeze(-1).expand(2, 3, 40, k, 8))
    want = (best.softmax(-1).unsqueeze(-1) * gathered).sum(-2)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-13)
    for got, leaf in zip(backward(dy), leaves, strict=False):
        np.testing.assert_allclose(got, leaf.grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("scores", "k", "kept"), [
    ([2, 2, 2, 2, 2], 2, [0, 1]),
    ([1, 5, 3, 3, 3], 3, [1, 2, 3]),
    ([3, 1, 3, 5, 3], 2, [0, 3]),
    ([-np.inf, 1, -np.inf, 0, -np.inf], 4, [1, 3]),
])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_equal_weights_the_lower_index_is_kept(scores, k, kept, dtype):
    zeros, value = np.zeros((1, 1), dtype), np.eye(5, dtype=dtype)                               # y is the row of weights itself
    bias = np.array([scores], dtype)
    y, _ = top_k_attention(zeros, np.zeros((5, 1), dtype), value, bias, k=k)
    assert np.flatnonzero(y[0]).tolist() == kept
    same = twin(torch.tensor(zeros), torch.zeros(5, 1).to(torch.tensor(zeros).dtype), torch.tensor(value), torch.tensor(bias), k=k)
    assert same[0].nonzero().ravel().tolist() == kept


def test_a_nan_is_not_forgotten():
    query, key = np.ones((2, 1)), np.array([[1.0], [2.0], [np.nan], [3.0]])
    y, _ = top_k_attention(query, key, np.ones((4, 1)), k=1)
    assert np.isnan(y).all()
    assert twin(torch.tensor(query), torch.tensor(key), torch.ones(4, 1).double(), k=1).isnan().all()
