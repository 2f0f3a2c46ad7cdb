"""What the laws cannot say of strided_attention: the paper's own pattern, its cost, the kernels of the torch side."""

import tracemalloc

import numpy as np
import pytest
import torch

from numpy_impl.attention.sliding_window import sliding_window_attention
from numpy_impl.attention.strided import strided_attention
from torch_impl.attention.strided import strided_attention as twin


def draws(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def test_it_is_the_union_of_the_papers_two_sets():
    # Child et al. 2019, section 4.3: A¹ᵢ = {t, …, i} with t = max(0, i − l), and A²ᵢ = {j : (i − j) mod l = 0}, both up to i.
    n, l = 150, 12
    query, key, value = draws(*[(2, n, 8)] * 3)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        mask[i, [*range(max(0, i - l), i + 1), *(j for j in range(i + 1) if (i - j) % l == 0)]] = True
    got, _ = strided_attention(query, key, value, stride=l, local=l, causal=True)
    want = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (query, key, value)), attn_mask=mask)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_a_dilated_window_is_a_sliding_window_over_every_second_position():
    query, key, value = draws(*[(2, 140, 8)] * 3)
    got, _ = strided_attention(query, key, value, stride=2, reach=10)
    for parity in (0, 1):
        half = (slice(None), slice(parity, None, 2))
        want, _ = sliding_window_attention(query[half], key[half], value[half], window=(5, 5))
        np.testing.assert_allclose(got[half], want, rtol=0, atol=1e-12)


def test_memory_grows_with_the_length_times_what_a_query_sees():
    def peak(t, stride):
        query, key, value, dy = (a.astype(np.float32) for a in draws(*[(t, 8)] * 4))
        tracemalloc.start()
        strided_attention(query, key, value, stride=stride, local=32)[1](dy)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(4096, 128) < 4.5 * peak(1024, 32)  # 32 far keys a query in both
    assert peak(1024, 64) < 0.3 * peak(1024, 2)


@pytest.mark.parametrize(("t", "s"), [(5, 5), (130, 150), (150, 130), (0, 3), (3, 0)])
@pytest.mark.parametrize("pattern", [
    dict(stride=3, local=1), dict(stride=7, local=20, causal=True), dict(stride=2, reach=9), dict(stride=500),
])
def test_the_kernels_agree(t, s, pattern):
    query, key, value = (torch.tensor(a) for a in draws((2, t, 8), (2, s, 8), (2, s, 4)))
    for options in ({}, {"soft_cap": 0.5}):
        flex = twin(query, key, value, **pattern, **options, kernel="flex")
        torch.testing.assert_close(flex, twin(query, key, value, **pattern, **options, kernel="math"), rtol=1e-9, atol=1e-12)


def test_what_a_kernel_cannot_do_is_refused_by_name():
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match="CUDA, or no gradients, for kernel 'flex'"):
        twin(x, x, x, stride=2, kernel="flex")
    with pytest.raises(ValueError, match="kernel from 'auto', 'math', 'flex'"):
        twin(x, x, x, stride=2, kernel="sdpa")
