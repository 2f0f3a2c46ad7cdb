"""What the laws cannot say of grouped-query attention: PyTorch's enable_gqa as oracle, wide heads, many strips, memory, kernels."""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from byhand.noise import Noise
from numpy_impl.attention.grouped_query import grouped_query_attention
from torch_impl.attention.grouped_query import grouped_query_attention as twin
from torch_impl.attention.grouped_query import multi_query_attention as multi_query_twin


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 2, 8), (6, 1, 64), (2, 2, 128), (8, 4, 256)])
@pytest.mark.parametrize(("t", "s", "causal"), [(70, 90, True), (280, 60, False)])
def test_it_is_what_pytorch_computes(heads, kv_heads, width, t, s, causal):
    rng = np.random.default_rng(0)
    query, dy = (rng.standard_normal((2, heads, t, n)) for n in (width, 5))
    key, value = (rng.standard_normal((2, kv_heads, s, n)) for n in (width, 5))
    y, backward = grouped_query_attention(query, key, value, causal=causal)
    q, k, v = (torch.tensor(x, requires_grad=True) for x in (query, key, value))
    mask = causal_lower_right(t, s)._materialize("cpu") if causal else None
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    for got, leaf in zip(backward(dy), (q, k, v), strict=False):
        np.testing.assert_allclose(got, leaf.grad, rtol=0, atol=1e-12)


def test_keys_and_values_are_not_repeated():
    heads, s = 32, 4096
    query, key = np.ones((heads, 1, 64), dtype=np.float32), np.ones((1, s, 64), dtype=np.float32)
    repeated = heads * key.nbytes
    tracemalloc.start()
    y, backward = grouped_query_attention(query, key, key)
    backward(np.ones_like(y))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < repeated / 4


@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"causal": True, "scale": -0.5}, {"mask": torch.tensor([True, False, True])},
    {"mask": torch.tensor([[True], [False], [True]]), "causal": True}, {"bias": torch.tensor([[0.5, -torch.inf, 1.0]]).double()},
    {"bias": torch.randn(4, 3, 3).double(), "mask": torch.tensor([True, True, False]), "causal": True},
])
@pytest.mark.parametrize("attention", [twin, multi_query_twin])
def test_the_kernels_agree(options, attention):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 3, 8, dtype=torch.float64, requires_grad=True)
    kv_shape = (2, 2, 3, 8) if attention is twin else (2, 3, 8)
    key, value = (torch.randn(kv_shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    results = []
    for kernel in ("math", "sdpa"):
        y = attention(query, key, value, **options, kernel=kernel)
        results.append((y, *torch.autograd.grad(y.square().sum(), (query, key, value))))
    for math_result, fused in zip(*results, strict=True):
        torch.testing.assert_close(math_result, fused, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"soft_cap": 5.0}, {"dropout": 0.5, "noise": Noise(seed=1)}])
def test_the_fused_kernel_is_refused_where_it_cannot(options):
    query, key = torch.randn(4, 3, 8), torch.randn(2, 3, 8)
    with pytest.raises(ValueError, match=r"kernel 'math' or 'auto'.*'sdpa'"):
        twin(query, key, key, **options, kernel="sdpa")
    assert torch.equal(twin(query, key, key, **options), twin(query, key, key, **options, kernel="math"))
    with pytest.raises(ValueError, match="did you mean 'sdpa'"):
        twin(query, key, key, kernel="spda")
