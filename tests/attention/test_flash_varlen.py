"""What the laws cannot say of packed attention: it is each document on its own, and other documents are not looked at."""

import numpy as np
import pytest

from numpy_impl.attention.flash import flash_attention
from numpy_impl.attention.flash_varlen import flash_attention_varlen


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (20, 3), "soft_cap": 3.0, "alibi_slopes": np.array([0.5, 0.1])}])
def test_each_document_is_on_its_own(options):
    rng = np.random.default_rng(0)
    lengths_q, lengths_k = (130, 1, 0, 40, 7, 60), (130, 5, 3, 0, 90, 20)
    ends_q, ends_k = (np.cumsum((0, *lengths)) for lengths in (lengths_q, lengths_k))
    query, key, value, dy = (rng.standard_normal((2, n, 8)) for n in (ends_q[-1], ends_k[-1], ends_k[-1], ends_q[-1]))
    y, backward = flash_attention_varlen(query, key, value, cu_seqlens_q=ends_q, cu_seqlens_k=ends_k, **options)
    packed = (y, *backward(dy))
    for first_q, last_q, first_k, last_k in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        queries, keys = slice(first_q, last_q), slice(first_k, last_k)
        alone, pullback = flash_attention(query[:, queries], key[:, keys], value[:, keys], **options)
        grads = pullback(dy[:, queries])
        for got, want, own in zip(packed, (alone, *grads), (queries, queries, keys, keys), strict=True):
            np.testing.assert_allclose(got[:, own], want, rtol=0, atol=1e-13)


def test_other_documents_are_not_looked_at():
    rng = np.random.default_rng(1)
    query, key, value = (rng.standard_normal((1, 3 * 96, 4)) for _ in range(3))
    key[:, 96:192], value[:, 96:192] = np.nan, np.nan                  # a document as high as a strip of queries
    y, _ = flash_attention_varlen(query, key, value, cu_seqlens_q=np.array([0, 96, 192, 288]), tile=96)
    assert np.isfinite(y[:, :96]).all()
    assert np.isnan(y[:, 96:192]).all()
    assert np.isfinite(y[:, 192:]).all()
