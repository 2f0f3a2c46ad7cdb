"""What the laws cannot say of attention: PyTorch's fused kernels as oracle, rows that see nothing, the kernels of the torch side."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.ops.random_bits import random_bits
from torch_impl.attention.scaled_dot_product import scaled_dot_product as twin


def tensors(*arrays):
    return [torch.tensor(array, requires_grad=True) for array in arrays]


@pytest.mark.parametrize(("t", "s"), [(5, 5), (3, 7), (130, 130), (70, 200), (280, 290)])
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_what_pytorch_computes(t, s, causal):
    rng = np.random.default_rng(0)
    query, key, value, dy = (rng.standard_normal((2, 3, n, 8)) for n in (t, s, s, t))
    y, backward = scaled_dot_product(query, key, value, causal=causal)
    q, k, v = tensors(query, key, value)
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(t, s) if causal else None)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    for got, leaf in zip(backward(dy), (q, k, v), strict=False):
        np.testing.assert_allclose(got, leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["math", "sdpa"])
@pytest.mark.parametrize("hidden_by", ["mask", "bias", "causal"])
def test_a_query_that_sees_nothing_gives_zero_and_passes_no_gradient(kernel, hidden_by):
    rng = np.random.default_rng(1)
    t, s = (5, 3) if hidden_by == "causal" else (4, 4)
    query, key, value, dy = (rng.standard_normal((2, n, 4)) for n in (t, s, s, t))
    bias = mask = None
    if hidden_by == "mask":
        mask = np.ones((2, t, s), dtype=bool)
        mask[1, 2] = False
    elif hidden_by == "bias":
        bias = rng.standard_normal((2, t, s))
        bias[1, 2] = -np.inf
    blind = [(0, 0), (0, 1), (1, 0), (1, 1)] if hidden_by == "causal" else [(1, 2)]

    y, backward = scaled_dot_product(query, key, value, bias, mask=mask, causal=hidden_by == "causal")
    dquery, _, _, dbias = backward(dy)
    leaves = tensors(query, key, value) + ([] if bias is None else tensors(bias))
    hidden = None if mask is None else torch.tensor(mask)
    want = twin(*leaves, mask=hidden, causal=hidden_by == "causal", kernel=kernel)
    grads = torch.autograd.grad(want, leaves, torch.tensor(dy))

    for row in blind:
        assert not y[row].any()
        assert not dquery[row].any()
        assert not want[row].any()
        assert not grads[0][row].any()
        if dbias is not None:
            assert not dbias[row].any()
            assert not grads[3][row].any()
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dquery, grads[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"causal": True, "scale": -0.5}, {"causal": True, "scale": 0.0}, {"scale": 2.0},
    {"mask": torch.tensor([True, False, True])},
    {"mask": torch.tensor([[True], [False], [True]]), "causal": True}, {"bias": torch.tensor([[0.5, -math.inf, 1.0]])},
    {"bias": torch.randn(3, 3), "mask": torch.tensor([True, True, False])},
])
def test_the_kernels_agree(options):
    # PyTorch's own causal flag with a scale of zero or less gives NaN on the CPU: the twin hands it a mask instead.
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    options = dict(options)
    bias = options["bias"].double() if "bias" in options else None
    options.pop("bias", None)
    results = []
    for kernel in ("math", "sdpa"):
        y = twin(query, key, value, bias, **options, kernel=kernel)
        results.append((y, *torch.autograd.grad(y.square().sum(), (query, key, value))))
    for math_result, fused in zip(*results, strict=True):
        torch.testing.assert_close(math_result, fused, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"soft_cap": 5.0}, {"dropout": 0.5, "noise": Noise(seed=1)}])
def test_the_fused_kernel_is_refused_where_it_cannot(options):
    x = torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"kernel 'math' or 'auto'.*'sdpa'"):
        twin(x, x, x, **options, kernel="sdpa")
    assert torch.equal(twin(x, x, x, **options), twin(x, x, x, **options, kernel="math"))
    with pytest.raises(ValueError, match="did you mean 'sdpa'"):
        twin(x, x, x, kernel="spda")


def test_dropout_reads_one_word_an_entry_of_the_whole_table():
    noise, (t, s) = Noise(seed=3), (70, 5)
    query = np.zeros((2, t, 4))                                     # every probability is 1 / s
    value = np.broadcast_to(np.eye(s), (2, s, s))                   # y is the dropped table itself
    y, _ = scaled_dot_product(query, np.zeros((2, s, 4)), value, dropout=0.25, noise=noise)
    kept = random_bits(noise, (2, t, s)) >= 1 << 30
    np.testing.assert_allclose(y, kept / (0.75 * s), rtol=1e-12)


def test_skipped_keys_are_not_even_read():
    # A causal query reads nothing beyond its strip: what a decoder will write there later cannot matter.
    rng = np.random.default_rng(2)
    query, key, value = (rng.standard_normal((130, 4)) for _ in range(3))
    y, _ = scaled_dot_product(query, key, value, causal=True)
    key[128:], value[128:] = np.nan, np.nan
    poisoned, _ = scaled_dot_product(query, key, value, causal=True)
    assert np.array_equal(poisoned[:128], y[:128])
    assert np.isnan(poisoned[129]).all()
