"""Bradley–Terry: probabilities of winning, and scores far apart."""

import numpy as np
import pytest

from numpy_impl.losses.bradley_terry import bradley_terry


def test_the_loss_is_the_cross_entropy_of_who_wins():
    chosen, rejected, epsilon = np.array([1.3, -0.4]), np.array([0.2, 0.9]), 0.2
    wins = np.exp(chosen) / (np.exp(chosen) + np.exp(rejected))  # Bradley & Terry's own form, in the strengths exp(score)
    want = -((1 - epsilon) * np.log(wins) + epsilon * np.log(1 - wins)).mean()
    assert bradley_terry(chosen, rejected, label_smoothing=epsilon)[0] == pytest.approx(want, rel=1e-12)
    assert bradley_terry(chosen - 0.7, rejected)[0] == pytest.approx(bradley_terry(chosen, rejected, margin=0.7)[0], rel=1e-12)


def test_scores_far_apart_stay_finite():
    far = np.array([1000.0, -1000.0])
    loss, backward = bradley_terry(far, np.zeros(2))
    assert loss == 500
    np.testing.assert_array_equal(backward(np.array(1.0))[0], [0, -0.5])
