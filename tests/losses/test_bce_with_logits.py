"""Binary cross-entropy against torch's, and far out where σ is 0 or 1 to the last bit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from numpy_impl.losses.bce_with_logits import bce_with_logits

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch(reduction, weighted):
    x, t, w = RNG.standard_normal((4, 3)), RNG.uniform(size=(4, 3)), RNG.uniform(0.5, 3, 3) if weighted else None
    tx, tt = torch.tensor(x, requires_grad=True), torch.tensor(t, requires_grad=True)
    want = F.binary_cross_entropy_with_logits(tx, tt, pos_weight=None if w is None else torch.tensor(w), reduction=reduction)
    dloss = RNG.standard_normal(want.shape)
    grads = torch.autograd.grad(want, (tx, tt), torch.tensor(dloss))
    loss, backward = bce_with_logits(x, t, pos_weight=w, reduction=reduction)
    for got, expected in zip((loss, *backward(np.asarray(dloss))), (want.detach(), *grads), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_far_out_the_loss_is_the_logit():
    x = np.array([800.0, -800.0, 800.0, -800.0], dtype=np.float32)
    loss, backward = bce_with_logits(x, np.array([0, 1, 1, 0], np.float32), reduction="none")
    np.testing.assert_array_equal(loss, [800, 800, 0, 0])
    np.testing.assert_array_equal(backward(np.ones(4, np.float32))[0], [1, -1, 0, 0])
