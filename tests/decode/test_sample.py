"""Samples follow the softmax, are the same on both sides, and need no more noise than what can win."""

import math

import numpy as np
import pytest
import torch

from byhand.noise import Noise
from numpy_impl.decode.gumbel import gumbel, sample
from torch_impl.decode import gumbel as twin

DRAWS = 50_000


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("truncated", [False, True])
def test_counts_follow_the_softmax(truncated):
    """Pearson's statistic over 19 degrees of freedom (9 if truncated) exceeds 43.8 (27.9) once in a thousand seeds."""
    logits = np.random.default_rng(1).standard_normal(20)
    if truncated:
        logits[1::2] = -np.inf
        logits = np.concatenate([logits, np.full(100, -np.inf)])       # few enough to be drawn one by one
    probabilities = np.exp(logits) / np.exp(logits).sum()
    ids = sample(np.tile(logits, (DRAWS, 1)), noise=Noise(seed=0))
    counts = np.bincount(ids, minlength=len(logits))
    possible = probabilities > 0
    bound = 27.9 if truncated else 43.8
    assert counts[~possible].sum() == 0
    assert chi_square(counts[possible], probabilities[possible]) < bound
    tilted = np.exp(1.1 * logits[possible])
    assert chi_square(counts[possible], tilted / tilted.sum()) > bound  # a tenth more of temperature would be noticed


def test_a_step_of_one_row_at_a_time_follows_the_softmax():
    """As a decoding loop does it: the next step's noise each time."""
    logits = np.log(np.array([[0.5, 0.2, 0.2, 0.1]]))
    ids = [int(sample(logits, noise=Noise(seed=3, step=step))[0]) for step in range(4000)]
    assert chi_square(np.bincount(ids, minlength=4), np.exp(logits[0])) < 16.3      # 3 degrees of freedom, once in a thousand


def test_the_noise_has_the_moments_of_a_gumbel_variable():
    g = gumbel((200_000,), noise=Noise(seed=5))
    assert abs(g.mean() - np.euler_gamma) < 4 * g.std() / np.sqrt(g.size)
    assert abs(g.var() - np.pi**2 / 6) < 0.04
    assert np.isfinite(g).all()


def test_the_noise_is_finite_at_both_ends():
    """The smallest and the largest of 2³² bits, on both sides."""
    from numpy_impl.decode.gumbel import _REACH, _gumbel

    ends = np.array([0, 2**32 - 1], dtype=np.uint32)
    low, high = _gumbel(ends)
    want = [-math.log(-math.log(0.5 / 2**32)), -math.log(-math.log1p(-0.5 / 2**32))]      # −log(−log u), u half a step from 0 and from 1
    np.testing.assert_allclose([low, high], want, rtol=1e-7)                             # of u near 1, log u has lost half its digits
    assert high - low < _REACH < high - low + 0.2
    np.testing.assert_allclose(twin._gumbel(torch.tensor([0, 2**32 - 1])).numpy(), [low, high], rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 32_000), (3, 50_257), (2, 150_000)])
@pytest.mark.parametrize("kept", [None, 50])
def test_both_sides_draw_the_same_at_the_size_of_a_vocabulary(shape, kept):
    for step in range(5):
        logits = 3 * np.random.default_rng(step).standard_normal(shape)
        if kept:
            logits[logits < np.sort(logits)[:, -kept, None]] = -np.inf
        noise = Noise(seed=11, step=step)
        ids = sample(logits, noise=noise)
        assert (ids == twin.sample(torch.tensor(logits), noise=noise).numpy()).all()
        assert (ids == (logits + gumbel(shape, noise=noise)).argmax(-1)).all()
        assert (ids == sample(logits.astype(np.float32), noise=noise)).all()        # float32's candidates are further apart than its error


def test_a_row_draws_the_same_whatever_rows_follow_it():
    logits = np.random.default_rng(0).standard_normal((4, 31))
    noise = Noise(seed=2)
    assert sample(logits, noise=noise)[0] == sample(logits[:1], noise=noise)[0]


def test_bfloat16_logits_are_drawn_in_float64():
    logits = torch.randn(2, 999, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert (twin.sample(logits, noise=Noise(1)) == twin.sample(logits.double(), noise=Noise(1))).all()
