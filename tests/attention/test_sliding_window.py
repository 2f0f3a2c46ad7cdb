"""What the laws cannot say of sliding_window_attention: Mistral's and Longformer's own code, its memory, the kernels of the torch side."""

import tracemalloc

import numpy as np
import pytest
import torch

from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.attention.sliding_window import sliding_window_attention
from torch_impl.attention.sliding_window import sliding_window_attention as twin


def draws(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(("t", "n"), [(9, 1), (9, 4), (150, 7), (150, 100)])
def test_a_window_of_n_tokens_is_mistrals(t, n):
    masks = pytest.importorskip("transformers.masking_utils")
    sees = masks.sliding_window_causal_mask_function(n)
    at = torch.arange(t)
    mask = torch.vmap(torch.vmap(lambda q, k: sees(0, 0, q, k), (None, 0)), (0, None))(at, at)
    query, key, value = draws(*[(2, t, 8)] * 3)
    got, _ = sliding_window_attention(query, key, value, window=(n - 1, 0))
    want = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (query, key, value)), attn_mask=mask)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def test_it_is_longformers_local_attention():
    # Longformer takes its softmax in float32, whatever it is given.
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    torch.manual_seed(0)
    config = longformer.LongformerConfig(hidden_size=8, num_attention_heads=2, attention_window=[6], attention_probs_dropout_prob=0.0)
    layer = longformer.LongformerSelfAttention(config, 0).double()
    x, t = torch.randn(2, 24, 8, dtype=torch.float64, requires_grad=True), 24
    nobody = torch.zeros(2, t, dtype=torch.bool)
    want = layer(x, torch.zeros(2, t, dtype=torch.float64), nobody, nobody, False)[0]
    dy = torch.randn_like(want)
    layers = layer.query, layer.key, layer.value
    query, key, value = (project(x).reshape(2, t, 2, 4).transpose(1, 2).detach() for project in layers)
    y, backward = sliding_window_attention(*(a.numpy() for a in (query, key, value)), window=(3, 3))
    np.testing.assert_allclose(y.swapaxes(1, 2).reshape(2, t, 8), want.detach(), rtol=0, atol=1e-6)

    weights = [project.weight for project in layers]
    for grad, wanted in zip(backward(dy.reshape(2, t, 2, 4).transpose(1, 2).numpy()), torch.autograd.grad(want, weights, dy), strict=True):
        dweight = np.einsum("bhte,btd->hed", grad, x.detach().numpy()).reshape(8, 8)
        np.testing.assert_allclose(dweight, wanted, rtol=0, atol=2e-6)


def test_memory_grows_with_the_length_and_not_with_its_square():
    def peak(t):
        query, key, value, dy = (a.astype(np.float32) for a in draws(*[(2, t, 8)] * 4))
        tracemalloc.start()
        _, backward = sliding_window_attention(query, key, value, window=(100, 20), dropout=0.1, noise=Noise(seed=1))
        backward(dy)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(4096) < 4.5 * peak(1024)


def test_dropout_drops_what_it_drops_in_plain_attention():
    query, key, value = draws((2, 3, 150, 4), (2, 3, 170, 4), (2, 3, 170, 4))
    distance = np.arange(170) - np.arange(20, 170)[:, None]
    options = dict(dropout=0.4, noise=Noise(seed=5, step=2))
    got, _ = sliding_window_attention(query, key, value, window=(30, 9), **options)
    want, _ = scaled_dot_product(query, key, value, mask=(distance >= -30) & (distance <= 9), **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("t", "s"), [(5, 5), (130, 150), (150, 130), (0, 3), (3, 0)])
@pytest.mark.parametrize("window", [(2, 1), (90, None), (None, 0), (0, 0)])
def test_the_kernels_agree(t, s, window):
    query, key, value = (torch.tensor(a, requires_grad=True) for a in draws((2, t, 8), (2, s, 8), (2, s, 4)))
    results = []
    for kernel in ("math", "sdpa"):
        y = twin(query, key, value, window=window, kernel=kernel)
        results.append((y, *torch.autograd.grad(y.square().sum(), (query, key, value))))
    for written_out, fused in zip(*results, strict=True):
        torch.testing.assert_close(written_out, fused, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        for options in ({}, {"soft_cap": 0.5}):
            flex = twin(query, key, value, window=window, kernel="flex", **options)
            torch.testing.assert_close(flex, twin(query, key, value, window=window, kernel="math", **options), rtol=1e-9, atol=1e-12)


def test_what_a_kernel_cannot_do_is_refused_by_name():
    x = torch.randn(3, 4)
    for kernel, options, message in [
        ("sdpa", {"soft_cap": 1.0}, "kernel 'math', 'flex' or 'auto' with a soft cap"),
        ("sdpa", {"dropout": 0.1, "noise": Noise(seed=0)}, "kernel 'math' or 'auto' with dropout"),
        ("flex", {"dropout": 0.1, "noise": Noise(seed=0)}, "kernel 'math' or 'auto' with dropout"),
        ("flexible", {}, "did you mean 'flex'"),
    ]:
        with pytest.raises(ValueError, match=message):
            twin(x, x, x, window=(1, 1), kernel=kernel, **options)
    with pytest.raises(ValueError, match="CUDA, or no gradients, for kernel 'flex'"):
        twin(x.requires_grad_(), x, x, window=(1, 1), kernel="flex")
