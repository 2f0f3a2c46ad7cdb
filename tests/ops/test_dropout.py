"""How often dropout keeps, that the mean stays, and what a pullback holds."""

import numpy as np
import pytest
import torch

import torch_impl.ops.dropout as theirs
from byhand.noise import Noise
from numpy_impl.ops.dropout import drop_path, dropout


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_is_kept(p):
    x = np.ones(1 << 18, dtype=np.float32)
    y, _ = dropout(x, p=p, noise=Noise(seed=1))
    deviation = (p * (1 - p) / x.size) ** 0.5
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    assert abs(y.mean() - 1) < 5 * deviation / (1 - p)


def test_steps_sites_and_seeds_drop_independently():
    masks = [dropout(np.ones(1 << 14), noise=noise)[0] > 0 for noise in (Noise(1), Noise(1, step=1), Noise(1, site=1), Noise(2))]
    agreement = np.array([[(a == b).mean() for b in masks] for a in masks])
    assert np.abs(agreement - 0.5 - 0.5 * np.eye(4)).max() < 5 * 0.5 / 2**7


def test_a_pullback_holds_a_byte_an_entry():
    x = np.ones((64, 64))
    _, backward = dropout(x, noise=Noise(seed=1))
    held = [cell.cell_contents for cell in backward.__closure__]
    assert sum(value.nbytes for value in held if isinstance(value, np.ndarray)) == x.size


def test_a_dropped_infinity_is_nan_as_in_torch():
    x, noise = np.array([np.inf, 1.0, np.nan, -np.inf] * 8), Noise(seed=5)
    mask = dropout(np.ones_like(x), noise=noise)[0] > 0
    everything = torch.nn.functional.dropout(torch.from_numpy(x), p=1.0)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(dropout(x, noise=noise)[0], x * mask * 2, equal_nan=True)
        assert np.array_equal(dropout(x, p=1.0, noise=noise)[0], everything.numpy(), equal_nan=True)


def test_drop_path_decides_once_a_sample():
    x = np.random.default_rng(0).standard_normal((4096, 3, 2))
    y, _ = drop_path(x, p=0.2, noise=Noise(seed=3))
    kept = (y != 0).any((1, 2))
    np.testing.assert_allclose(y, x * kept[:, None, None] / 0.8, rtol=1e-15)
    assert abs(kept.mean() - 0.8) < 5 * 0.4 / 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_and_its_mask(dtype):
    x = torch.ones(1000, dtype=dtype)
    y = theirs.dropout(x, p=0.5, noise=Noise(seed=1))
    assert y.dtype == dtype
    assert np.array_equal(y.float().numpy(), dropout(np.ones(1000), p=0.5, noise=Noise(seed=1))[0])
    assert theirs.drop_path(x, p=0.5, noise=Noise(seed=1)).dtype == dtype
