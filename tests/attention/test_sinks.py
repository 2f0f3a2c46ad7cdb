"""What the laws cannot say of attention sinks: what transformers' gpt-oss computes, and the one more key that they are."""

import math
import types

import numpy as np
import pytest
import torch

from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.attention.sinks import sink_attention
from torch_impl.attention.sinks import sink_attention as twin


@pytest.mark.parametrize("t", [9, 130])
def test_it_is_what_gpt_oss_computes(t):
    modeling = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, heads, t, 8)) for heads in (4, 2, 2))
    sinks, dy = rng.standard_normal(4), rng.standard_normal((2, 4, t, 8))
    mask = np.tri(t, dtype=bool) & ~np.tri(t, t, -5, dtype=bool)  # its layers look back through a window
    y, backward = sink_attention(query, key, value, sinks, mask=mask, scale=0.3)

    leaves = q, k, v, learned = [torch.tensor(x, requires_grad=True) for x in (query, key, value, sinks)]
    module = types.SimpleNamespace(num_key_value_groups=2, sinks=learned, training=False)
    hidden = torch.zeros(t, t, dtype=torch.float64).masked_fill(~torch.tensor(mask), torch.finfo(torch.float64).min)
    want, _ = modeling.eager_attention_forward(module, q, k, v, hidden, scaling=0.3)             # (B, T, H, W)
    want.backward(torch.tensor(dy.swapaxes(1, 2)))
    np.testing.assert_allclose(y, want.detach().transpose(1, 2), rtol=0, atol=1e-13)
    for got, leaf in zip(backward(dy), leaves, strict=False):
        np.testing.assert_allclose(got, leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"causal": True, "scale": -0.5}, {"mask": torch.tensor([[True], [False], [True]]), "causal": True},
    {"bias": torch.tensor([[0.5, -torch.inf, 1.0]]).double()}, {"bias": torch.randn(4, 3, 3).double(), "mask": torch.eye(3).bool()},
])
@pytest.mark.parametrize("sinks", [[0.0, 1.0, -2.0, 30.0], [-math.inf, 0.0, -math.inf, 2.0]])
def test_the_kernels_agree(options, sinks):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 3, 8, dtype=torch.float64)
    key, value = torch.randn(2, 2, 2, 3, 8, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (query, key, value, torch.tensor(sinks, dtype=torch.float64))]
    results = []
    for kernel in ("math", "sdpa"):
        y = twin(*leaves, **options, kernel=kernel)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    for math_result, fused in zip(*results, strict=True):
        torch.testing.assert_close(math_result, fused, rtol=1e-9, atol=1e-12)


def test_a_sink_is_one_more_key_of_value_zero():
    rng = np.random.default_rng(1)
    query, key, value = (rng.standard_normal((3, 6, 4)) for _ in range(3))
    sinks = rng.standard_normal(3)
    first = np.zeros((3, 1, 4))
    bias = np.concatenate([sinks[:, None, None], np.zeros((3, 1, 6))], -1)
    want, _ = scaled_dot_product(query, np.concatenate([first, key], 1), np.concatenate([first, value], 1), bias, causal=True)
    y, _ = sink_attention(query, key, value, sinks, causal=True)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-14)
