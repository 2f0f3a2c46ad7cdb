"""Initial values keep the variances that their papers promise; orthogonal matrices are uniform; truncation is exact."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from numpy_impl.layers import init


@pytest.mark.parametrize("draw", [init.kaiming_uniform, init.kaiming_normal])
def test_relu_layers_keep_the_second_moment(draw):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 400)).astype(np.float32)
    for _ in range(5):
        x = np.maximum(x, 0) @ draw((400, 400), nonlinearity="relu", rng=rng).T
    assert 0.8 < (x * x).mean() < 1.25


@pytest.mark.parametrize("shape", [(40, 20), (6, 4, 3), (5, 4, 3, 2)])
@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"])
def test_scales_are_those_of_torch(name, shape):
    # torch's spread, measured on a weight with the same fans and many more entries than the sample error allows for
    for options in [{}, {"mode": "fan_out", "nonlinearity": "tanh"}, {"a": 0.7}] if "kaiming" in name else [{}, {"gain": 2.0}]:
        fill = getattr(torch.nn.init, f"{name}_")
        theirs = torch.stack([fill(torch.empty(shape), **options) for _ in range(200)]).std().item()
        ours = np.stack([getattr(init, name)(shape, **options, rng=np.random.default_rng(i)) for i in range(200)]).std()
        assert abs(ours / theirs - 1) < 6 / math.sqrt(200 * math.prod(shape))


def test_orthogonal_matrices_are_uniform():
    # Of a uniform rotation of 3 dimensions the trace has mean 0 and variance 1, and both determinants are equally likely.
    # Without the signs of R's diagonal LAPACK's Q is far from that.
    rng = np.random.default_rng(0)
    matrices = np.stack([init.orthogonal((3, 3), dtype=np.float64, rng=rng) for _ in range(4000)])
    traces = np.trace(matrices, axis1=1, axis2=2)
    assert abs(traces.mean()) < 0.08
    assert abs(traces.var() - 1) < 0.12
    assert abs((np.linalg.det(matrices) > 0).mean() - 0.5) < 0.04


@pytest.mark.parametrize("mean, std, low, high", [(0, 1, -2, 2), (0.3, 2, 0, 1), (-1, 0.5, -0.5, 3)])
def test_truncated_normal_has_the_truncated_distribution(mean, std, low, high):
    w = np.sort(init.truncated_normal((20000,), mean=mean, std=std, low=low, high=high, dtype=np.float64, rng=np.random.default_rng(0)))
    uncut = NormalDist(mean, std)
    below, inside = uncut.cdf(low), uncut.cdf(high) - uncut.cdf(low)
    expected = (np.array([uncut.cdf(v) for v in w]) - below) / inside
    gap = np.abs(expected - (np.arange(w.size) + 0.5) / w.size).max()
    assert gap < 2 / math.sqrt(w.size)           # Kolmogorov: less than one in a thousand exceeds it


def test_float16_is_refused():
    with pytest.raises(ValueError, match="kaiming_normal needs values in float32 or float64; got values float16"):
        init.kaiming_normal((2, 2), dtype=np.float16)
