"""What the laws cannot say of block_attention: BigBird's own code, that what was drawn stays drawn, memory, the torch side's kernels."""

import tracemalloc

import numpy as np
import pytest
import torch

from numpy_impl.attention import block as block_file
from numpy_impl.attention.block import block_attention, block_pattern
from torch_impl.attention.block import block_attention as twin


def draws(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def test_it_computes_what_bigbird_computes(monkeypatch):
    # BigBird draws its blocks from NumPy's global generator, and none in inference; its first and its last block are global. So both are
    # given one pattern, and what is compared is the attention.
    bigbird = pytest.importorskip("transformers.models.big_bird.modeling_big_bird")
    torch.manual_seed(0)
    n, size, heads = 9, 3, 2
    config = bigbird.BigBirdConfig(hidden_size=8, num_attention_heads=heads, block_size=size, num_random_blocks=1, use_bias=False)
    layer = bigbird.BigBirdBlockSparseAttention(config).double()
    rng = np.random.default_rng(0)
    drawn = [rng.choice([j for j in range(1, n - 1) if abs(i - j) > 1], 1) for i in range(1, n - 1)]
    layer._bigbird_block_rand_mask_with_head = lambda **_: [np.array(drawn)] * heads
    i, j = np.arange(n)[:, None], np.arange(n)
    pattern = (i % (n - 1) == 0) | (j % (n - 1) == 0) | (abs(i - j) <= 1)
    pattern[np.arange(1, n - 1)[:, None], drawn] = True
    monkeypatch.setattr(block_file, "block_pattern", lambda *_, **__: pattern)

    x = torch.randn(2, n * size, 8, dtype=torch.float64)
    blocked, band, rows, columns = bigbird.BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(2, n * size).double(), size)
    want, _ = layer(x, band, rows, columns, blocked, blocked)
    layers = layer.query, layer.key, layer.value
    query, key, value = (project(x).reshape(2, -1, heads, 4).transpose(1, 2).detach().numpy() for project in layers)
    y, backward = block_attention(query, key, value, block=size)
    np.testing.assert_allclose(y.swapaxes(1, 2).reshape(2, -1, 8), want.detach(), rtol=0, atol=1e-12)

    dy = torch.randn_like(want)
    weights = [project.weight for project in layers]
    grads = backward(dy.reshape(2, -1, heads, 4).transpose(1, 2).numpy())
    for grad, wanted in zip(grads, torch.autograd.grad(want, weights, dy), strict=True):
        np.testing.assert_allclose(np.einsum("bhte,btd->hed", grad, x.numpy()).reshape(8, 8), wanted, rtol=0, atol=1e-12)


def test_the_random_blocks_of_a_trained_model_are_still_the_same():
    pattern = block_pattern(12, global_blocks=1, window_blocks=0, random_blocks=2, seed=7)
    drawn = [[int(j) for j in np.flatnonzero(row) if j not in (0, i)] for i, row in enumerate(pattern)]
    assert drawn[1:] == [[2, 5], [3, 7], [7, 11], [6, 7], [1, 3], [1, 2], [3, 10], [1, 9], [3, 6], [6, 7], [5, 7]]


def test_every_block_is_drawn_about_equally_often():
    counts = sum(block_pattern(9, global_blocks=0, window_blocks=0, random_blocks=2, seed=seed) for seed in range(600))
    assert (np.diag(counts) == 600).all()
    others = counts[~np.eye(9, dtype=bool)]                    # each is drawn with probability 2 / 8
    assert abs(others - 150).max() < 6 * np.sqrt(600 * 0.25 * 0.75)


def test_a_token_sees_the_same_past_when_the_text_goes_on():
    query, key, value = draws(*[(30, 4)] * 3)
    options = dict(block=3, global_blocks=1, random_blocks=1, causal=True)
    whole, _ = block_attention(query, key, value, **options)
    for t in (1, 7, 16, 29):
        one, _ = block_attention(query[t - 1:t], key[:t], value[:t], **options)
        np.testing.assert_allclose(one[0], whole[t - 1], rtol=0, atol=1e-14)


def test_memory_grows_with_the_length_and_not_with_its_square():
    def peak(t):
        query, key, value, dy = (a.astype(np.float32) for a in draws(*[(2, t, 8)] * 4))
        tracemalloc.start()
        block_attention(query, key, value, block=32, causal=True)[1](dy)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(4096) < 4.5 * peak(1024)


@pytest.mark.parametrize(("t", "s"), [(20, 20), (11, 30), (30, 11), (0, 3), (3, 0)])
@pytest.mark.parametrize("pattern", [{}, dict(causal=True), dict(global_blocks=0, random_blocks=1), dict(global_blocks=50)])
def test_the_kernels_agree(t, s, pattern):
    query, key, value = (torch.tensor(a, requires_grad=True) for a in draws((2, t, 8), (2, s, 8), (2, s, 4)))
    results = []
    for kernel in ("math", "sdpa"):
        y = twin(query, key, value, block=3, **pattern, kernel=kernel)
        results.append((y, *torch.autograd.grad(y.square().sum(), (query, key, value))))
    for written_out, fused in zip(*results, strict=True):
        torch.testing.assert_close(written_out, fused, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        for options in ({}, {"soft_cap": 0.5}):
            flex = twin(query, key, value, block=3, **pattern, **options, kernel="flex")
            torch.testing.assert_close(flex, twin(query, key, value, block=3, **pattern, **options, kernel="math"), rtol=1e-9, atol=1e-12)


def test_what_a_kernel_cannot_do_is_refused_by_name():
    x = torch.randn(3, 4)
    with pytest.raises(ValueError, match="kernel 'math', 'flex' or 'auto' with a soft cap"):
        twin(x, x, x, soft_cap=1.0, kernel="sdpa")
    with pytest.raises(ValueError, match="CUDA, or no gradients, for kernel 'flex'"):
        twin(x.requires_grad_(), x, x, kernel="flex")
