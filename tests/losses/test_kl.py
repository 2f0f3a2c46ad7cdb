"""KL divergences against torch's kl_div, and what they must be whatever the library."""

import numpy as np
import torch
import torch.nn.functional as F

from numpy_impl.losses.kl import kl_forward, kl_reverse, kl_symmetric

RNG = np.random.default_rng(0)
LOGITS, TARGET = RNG.standard_normal((6, 5)), 3 * RNG.standard_normal((6, 5))


def test_forward_and_reverse_are_kl_div_by_batch_mean():
    q, p = (F.log_softmax(torch.tensor(a), -1) for a in (LOGITS, TARGET))
    np.testing.assert_allclose(kl_forward(LOGITS, TARGET)[0], F.kl_div(q, p.exp(), reduction="batchmean"), rtol=1e-12)
    np.testing.assert_allclose(kl_reverse(LOGITS, TARGET)[0], F.kl_div(p, q.exp(), reduction="batchmean"), rtol=1e-12)
    want = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=torch.tensor(a)) for a in (TARGET, LOGITS)))
    np.testing.assert_allclose(kl_forward(LOGITS, TARGET)[0], want.mean(), rtol=1e-12)


def test_equal_distributions_have_none_and_only_differences_of_logits_matter():
    for divergence in (kl_forward, kl_reverse, kl_symmetric):
        loss, backward = divergence(LOGITS, LOGITS + 7)
        assert abs(loss) < 1e-15
        assert all(np.abs(grad).max() < 1e-15 for grad in backward(np.array(1.0)))
        np.testing.assert_allclose(divergence(LOGITS + 7, TARGET)[0], divergence(LOGITS, TARGET)[0], rtol=1e-12)


def test_probabilities_that_underflow_leave_it_finite():
    sure, opposite = np.array([[0.0, 2000.0]]), np.array([[2000.0, 0.0]])
    for divergence in (kl_forward, kl_reverse, kl_symmetric):
        loss, backward = divergence(sure, opposite)
        assert loss == 2000
        assert all(np.isfinite(grad).all() for grad in backward(np.array(1.0)))
