"""Pooling against sentence-transformers' own, values and gradients; and what is ours: padding is not looked at, no token is no vector.

Where a text is padding alone, sentence-transformers takes the first vector of it (cls), the last one times 0 (lasttoken) or −∞ (max).
"""

import numpy as np
import pytest
import torch

from numpy_impl.ops import pooling
from torch_impl.ops import pooling as twins

OPS = {"cls": "cls_pool", "max": "max_pool", "mean": "mean_pool", "mean_sqrt_len_tokens": "mean_sqrt_len_pool",
       "weightedmean": "weighted_mean_pool", "lasttoken": "last_token_pool"}
X = np.random.default_rng(0).normal(size=(5, 6, 4))
#                 nothing is padding     behind              before              both                between
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]], bool)


@pytest.mark.parametrize("mode", OPS)
def test_values_and_gradients_are_those_of_sentence_transformers(mode):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    x = torch.tensor(X, requires_grad=True)
    theirs = modules.Pooling(4, mode)({"token_embeddings": x, "attention_mask": torch.tensor(MASK).long()})["sentence_embedding"]
    dy = np.random.default_rng(1).normal(size=(5, 4))
    theirs.backward(torch.tensor(dy))
    y, backward = getattr(pooling, OPS[mode])(X, mask=MASK)
    np.testing.assert_allclose(y, theirs.detach(), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(backward(dy), x.grad, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", OPS.values())
def test_what_stands_at_padding_is_not_looked_at(name):
    clean, soiled = X.copy(), X.copy()
    clean[~MASK], soiled[~MASK] = 0, np.array([np.nan, np.inf, -np.inf, 1e300])
    want, backward = getattr(pooling, name)(clean, mask=MASK)
    y, soiled_backward = getattr(pooling, name)(soiled, mask=MASK)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(soiled_backward(want), backward(want))
    x = torch.tensor(soiled, requires_grad=True)
    twin = getattr(twins, name)(x, mask=torch.tensor(MASK))
    twin.backward(torch.tensor(want))
    np.testing.assert_allclose(twin.detach(), want, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(x.grad, backward(want), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", OPS.values())
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4)])
def test_no_token_is_no_vector(name, shape):
    y, backward = getattr(pooling, name)(np.full(shape, np.nan), mask=np.zeros(shape[:-1], bool))
    np.testing.assert_array_equal(y, np.zeros((2, 4)))
    np.testing.assert_array_equal(backward(np.full((2, 4), np.nan)), np.zeros(shape))
