"""Distillation: the limit that Hinton et al. derive in their section 2.1."""

import numpy as np

from numpy_impl.losses.distillation import distillation


def test_at_high_temperature_it_matches_logits_and_keeps_its_size():
    """T² · ∂C/∂z → (z − v) / V for logits z, v of zero mean (equation 4): the soft gradient does not vanish with 1/T²."""
    rng = np.random.default_rng(0)
    student, teacher = (a - a.mean() for a in rng.standard_normal((2, 7)))
    _, backward = distillation(student, teacher, targets=np.array(0), temperature=1e5, alpha=1.0)
    np.testing.assert_allclose(backward(np.array(1.0))[0], (student - teacher) / 7, rtol=1e-3, atol=1e-5)
