"""Masked softmax against softmax of what the mask keeps, and rows of which nothing is kept."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.softmax as by_hand
import torch_impl.ops.softmax as twin


def _ragged():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 9)), rng.random((6, 9)) < 0.5, rng.standard_normal((6, 9))


def test_a_mask_is_the_same_as_leaving_entries_out():
    x, mask, dy = _ragged()
    y, backward = by_hand.softmax(x, mask=mask, temperature=0.7)
    log, log_backward = by_hand.log_softmax(x, mask=mask, temperature=0.7)
    total, total_backward = by_hand.logsumexp(x, mask=mask)
    dx, dlog, dtotal = backward(dy), log_backward(dy), total_backward(np.arange(6.0))
    for n in range(6):
        kept = mask[n]
        part, part_backward = by_hand.softmax(x[n, kept], temperature=0.7)
        np.testing.assert_allclose(y[n, kept], part, rtol=1e-13)
        np.testing.assert_allclose(dx[n, kept], part_backward(dy[n, kept]), rtol=1e-10, atol=1e-15)
        part, part_backward = by_hand.log_softmax(x[n, kept], temperature=0.7)
        np.testing.assert_allclose(log[n, kept], part, rtol=1e-13)
        np.testing.assert_allclose(dlog[n, kept], part_backward(dy[n, kept]), rtol=1e-10, atol=1e-15)
        part, part_backward = by_hand.logsumexp(x[n, kept])
        np.testing.assert_allclose(total[n], part, rtol=1e-13)
        np.testing.assert_allclose(dtotal[n, kept], part_backward(np.array(float(n))), rtol=1e-12)
    assert not y[~mask].any() and not dx[~mask].any() and not dlog[~mask].any() and not dtotal[~mask].any()
    assert (log[~mask] == -np.inf).all()


@pytest.mark.parametrize("fill", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("name,empty", [("softmax", 0.0), ("log_softmax", -np.inf), ("logsumexp", -np.inf)])
def test_a_row_of_which_nothing_is_kept_has_no_gradient(name, empty, fill):
    x, mask, _ = _ragged()
    x[2], mask[2] = fill, False
    y, backward = getattr(by_hand, name)(x, mask=mask)
    assert (y[2] == empty).all()
    dx = backward(np.ones_like(y))
    assert np.isfinite(dx).all() and not dx[2].any()
    tensor = torch.tensor(x, requires_grad=True)
    want = getattr(twin, name)(tensor, mask=torch.tensor(mask))
    assert (want[2] == empty).all()
    want.backward(torch.ones_like(want))
    np.testing.assert_allclose(dx, tensor.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_more_rows_than_a_block_holds(name, axis):
    x = np.random.default_rng(0).standard_normal((40, 50, 60))
    y, backward = getattr(by_hand, name)(x, axis=axis)
    tensor = torch.tensor(x, requires_grad=True)
    want = getattr(torch, name)(tensor, axis)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=1e-12)
    np.testing.assert_allclose(backward(dy), tensor.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("shape, axis", [((3, 5000, 7), 1), ((2, 50257), -1)])
def test_equal_logits_are_equally_likely(shape, axis):
    """However many there are: the sum of equal terms is not left to rounding."""
    y, _ = by_hand.softmax(np.full(shape, 20.0, np.float32), axis=axis)
    np.testing.assert_allclose(y, 1 / shape[axis], rtol=1e-6)
