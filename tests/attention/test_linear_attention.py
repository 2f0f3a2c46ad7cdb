"""What the laws cannot say of linear attention: it is a recurrent network (section 3.4 of the paper), and its memory is linear in T."""

import tracemalloc

import numpy as np
import pytest
import torch

from numpy_impl.attention.linear_attention import linear_attention
from torch_impl.attention.linear_attention import linear_attention as twin


def test_it_is_a_recurrent_network():
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((150, n)) for n in (4, 4, 3))
    y, _ = linear_attention(query, key, value, causal=True, eps=1e-6)
    s, z = np.zeros((4, 3)), np.zeros(4)
    for t in range(150):
        phi_q, phi_k = (np.where(x[t] > 0, x[t] + 1, np.exp(x[t])) for x in (query, key))
        s += np.outer(phi_k, value[t])
        z += phi_k
        np.testing.assert_allclose(y[t], phi_q @ s / (phi_q @ z + 1e-6), rtol=1e-12)


def test_memory_grows_linearly():
    def peak(t):
        x = np.ones((t, 32), dtype=np.float32)
        tracemalloc.start()
        y, backward = linear_attention(x, x, x, causal=True)
        backward(np.ones_like(y))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(4096) < 2.2 * peak(2048) < 4096**2  # below one byte for every entry of the table


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_twin_sums_half_precision_in_float32(dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2048, 16).to(dtype) for _ in range(3))
    y, want = (twin(*(x.to(kind) for x in (query, key, value)), causal=True) for kind in (dtype, torch.float64))
    assert y.dtype == dtype
    assert (y - want).abs().max() < 2 * torch.finfo(dtype).eps * want.abs().max()
    blind = torch.randn(8, 4).to(dtype).requires_grad_()
    twin(blind, torch.ones(5, 4, dtype=dtype), torch.ones(5, 3, dtype=dtype), causal=True).sum().backward()
    assert blind.grad is not None and (blind.grad[:3] == 0).all()
