"""Sinusoidal positions against transformers' interleaved table, and the property for which they were chosen."""

import numpy as np
import pytest

from numpy_impl.positions.sinusoidal import sinusoidal


def test_agrees_with_transformers():
    speech = pytest.importorskip("transformers.models.speecht5.modeling_speecht5")
    theirs = speech.SpeechT5ScaledPositionalEncoding(dropout=0.0, dim=24, max_len=300).pe[0].numpy()
    np.testing.assert_allclose(sinusoidal(300, 24), theirs, rtol=0, atol=1e-4)   # theirs computes its angles in float32


def test_wavelengths_run_from_two_pi_to_base_times_two_pi():
    # "The wavelengths form a geometric progression from 2π to 10000 · 2π" (the paper, section 3.5); the last stands at width itself.
    half = sinusoidal(1, 512, offset=1, dtype=np.float64)[0]
    angles = np.arctan2(half[0::2], half[1::2])
    np.testing.assert_allclose(angles[0], 1, rtol=1e-12)
    np.testing.assert_allclose(angles[1:] / angles[:-1], 10000 ** (-2 / 512), rtol=1e-9)


def test_a_shift_is_the_same_rotation_everywhere():
    table, shifted = (sinusoidal(50, 6, offset=offset, dtype=np.float64) for offset in (0, 7))
    rotation, residual, *_ = np.linalg.lstsq(table, shifted, rcond=None)
    assert residual.max() < 1e-20
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(6), rtol=0, atol=1e-9)


def test_far_positions_are_exact_in_float32():
    exact = sinusoidal(1, 8, offset=1_000_003, dtype=np.float64)
    assert np.abs(sinusoidal(1, 8, offset=1_000_003) - exact).max() < 1e-7   # angles in float32 would be off by 0.03
