"""What expert choice, Sinkhorn's scores and the router's noise promise."""

import itertools

import numpy as np
import pytest

from byhand.noise import Noise
from numpy_impl.moe.capacity import capacity
from numpy_impl.moe.expert_choice import expert_choice
from numpy_impl.moe.noisy import jitter, noisy_logits
from numpy_impl.moe.router import router
from numpy_impl.moe.sinkhorn import sinkhorn


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_all_experts_are_equally_busy_however_skewed_the_router(score):
    logits = np.random.default_rng(0).standard_normal((64, 8)) + np.linspace(-3, 3, 8)
    limit = capacity(tokens=64, experts=8, k=2)
    chosen, _ = expert_choice(logits, limit=limit, score=score)
    assert chosen.ids.shape == (8, 16)
    assert all(len(set(row)) == 16 for row in chosen.ids.tolist())
    assert np.bincount(router(logits, k=2)[0].ids.ravel(), minlength=8).max() > 3 * limit      # tokens that choose crowd
    for e in range(8):                                                                         # every one taken is better than any other
        others = np.delete(chosen.scores[:, e], chosen.ids[e])
        assert chosen.weights[e].min() >= others.max() and (np.diff(chosen.weights[e]) <= 0).all()


def test_padding_is_chosen_last_and_weighs_nothing():
    logits = np.random.default_rng(1).standard_normal((6, 3))
    mask = np.array([True, False, True, False, True, False])
    chosen, backward = expert_choice(logits, limit=4, mask=mask)
    assert (np.sort(chosen.ids[:, :3]) == [0, 2, 4]).all() and (chosen.weights[:, 3] == 0).all()
    assert (backward(np.ones((3, 4)), np.zeros((6, 3)))[~mask] == 0).all()
    nothing, backward = expert_choice(logits, limit=4, mask=np.zeros(6, bool))
    assert (nothing.weights == 0).all() and (backward(np.ones((3, 4)), np.zeros((6, 3))) == 0).all()
    assert expert_choice(np.zeros((0, 3)), limit=4)[0].ids.shape == (3, 0)


def test_sinkhorn_s_rows_and_columns_come_right():
    logits = 2 * np.random.default_rng(2).standard_normal((30, 6)) + np.linspace(-2, 2, 6)
    distance = []
    for iterations in (1, 4, 16, 64):
        y, _ = sinkhorn(logits, iterations=iterations)
        np.testing.assert_allclose(y.sum(1), np.ones(30), rtol=1e-13)
        distance.append(np.abs(y.sum(0) - 5).max())
    assert distance[0] > 0.3 and all(b < a / 3 for a, b in itertools.pairwise(distance)) and distance[-1] < 1e-6
    # y is exp(logits), its rows and columns scaled: ratios of ratios are those of exp(logits)
    centred = np.log(y) - logits
    centred -= centred.mean(0)
    centred -= centred.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, 0, atol=1e-12)
    assert np.isfinite(sinkhorn(np.float32(1e4) * logits.astype(np.float32))[0]).all()


def test_the_noise_is_normal_and_of_the_learnt_size():
    spread = np.full((200, 500), np.log(np.expm1(0.7)))                                        # softplus(spread) = 0.7
    y, backward = noisy_logits(np.zeros_like(spread), spread, noise=Noise(seed=3))
    eps = y / 0.7
    assert abs(eps.mean()) < 0.02 and abs(eps.std() - 1) < 0.01 and abs((eps**4).mean() - 3) < 0.1
    assert abs(np.mean(np.abs(eps) < 1) - 0.6827) < 0.005 and abs(np.corrcoef(eps[:, :-1].ravel(), eps[:, 1:].ravel())[0, 1]) < 0.02
    np.testing.assert_allclose(backward(np.ones_like(y))[1], eps * (1 - np.exp(-0.7)), rtol=1e-12)     # softplus′ = 1 − exp(−softplus)
    u, _ = jitter(np.ones((200, 500)), eps=0.01, noise=Noise(seed=3))
    assert 0.99 <= u.min() < 0.9901 and 1.0099 < u.max() <= 1.01 and abs(u.std() - 0.01 / np.sqrt(3)) < 1e-4
