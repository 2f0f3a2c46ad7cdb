"""Cross-entropy in all its forms, against torch.nn.functional and against the definition."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import numpy_impl.losses.cross_entropy as by_hand
import torch_impl.losses.cross_entropy as twin
import torch_impl.losses.softmax_cross_entropy as fused_twin

N, V = 12, 5
RNG = np.random.default_rng(0)
LOGITS, TARGETS, WEIGHTS = RNG.standard_normal((N, V)), RNG.integers(0, V, N), RNG.uniform(0.5, 2, V)
TARGETS[::4] = -100


@pytest.mark.parametrize("reduction,epsilon,weighted", list(itertools.product(("mean", "sum", "none"), (0.0, 0.2, 1.0), (False, True))))
def test_equals_torch_on_their_common_options(reduction, epsilon, weighted):
    logits = torch.tensor(LOGITS, requires_grad=True)
    weights = torch.tensor(WEIGHTS) if weighted else None
    want = F.cross_entropy(logits, torch.tensor(TARGETS), weights, reduction=reduction, label_smoothing=epsilon)
    dloss = RNG.standard_normal(want.shape)
    (dwant,) = torch.autograd.grad(want, logits, torch.tensor(dloss))
    options = dict(reduction=reduction, label_smoothing=epsilon)

    got, backward = by_hand.cross_entropy(LOGITS, targets=TARGETS, class_weights=WEIGHTS if weighted else None, **options)
    also = twin.cross_entropy(logits, targets=torch.tensor(TARGETS), class_weights=weights, **options)
    np.testing.assert_allclose(got, want.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(also.detach(), want.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(backward(np.asarray(dloss)), dwant, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("smoothing", ["all", "others"])
def test_smoothing_is_what_the_definition_says(smoothing):
    epsilon, one_hot = 0.3, np.eye(V)[np.maximum(TARGETS, 0)]
    spread = np.full((N, V), epsilon / V) if smoothing == "all" else (1 - one_hot) * epsilon / (V - 1)
    q = (1 - epsilon) * one_hot + spread
    np.testing.assert_allclose(q.sum(-1), 1)
    logp = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    want = np.where(TARGETS == -100, 0, -(q * WEIGHTS * logp).sum(-1))
    got, _ = by_hand.cross_entropy(
        LOGITS, targets=TARGETS, class_weights=WEIGHTS, label_smoothing=epsilon, smoothing=smoothing, reduction="none"
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_z_loss_adds_the_squared_log_partition_of_the_tokens_that_count():
    lse = np.log(np.exp(LOGITS).sum(-1))
    plain, with_z = (by_hand.cross_entropy(LOGITS, targets=TARGETS, reduction="none", z_loss=z)[0] for z in (0.0, 0.25))
    np.testing.assert_allclose(with_z - plain, np.where(TARGETS == -100, 0, 0.25 * lse**2), rtol=1e-12, atol=1e-14)


def test_micro_batches_with_the_batch_s_normalizer_sum_to_the_whole():
    whole, backward = by_hand.cross_entropy(LOGITS, targets=TARGETS)
    count = int((TARGETS != -100).sum())
    parts = [by_hand.cross_entropy(LOGITS[i : i + 5], targets=TARGETS[i : i + 5], normalizer=count) for i in range(0, N, 5)]
    np.testing.assert_allclose(sum(loss for loss, _ in parts), whole, rtol=1e-12)
    one = np.array(1.0)
    np.testing.assert_allclose(np.concatenate([pull(one) for _, pull in parts]), backward(one), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_mean_over_no_tokens_is_nan_and_has_no_gradient():
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = twin.cross_entropy(logits, targets=torch.full((N,), -100))
    loss.backward()
    ours, backward = by_hand.cross_entropy(LOGITS, targets=np.full(N, -100))
    assert np.isnan(loss.item())
    assert np.isnan(ours)
    with np.errstate(divide="ignore"):
        assert not logits.grad.any()
        assert not backward(np.array(1.0)).any()


def test_extreme_logits_stay_finite_and_masked_classes_get_no_gradient():
    logits = np.array([[1e4, -1e4, 0.0], [-3e4, -3e4, -np.inf]], dtype=np.float32)
    loss, backward = by_hand.cross_entropy(logits, targets=np.array([1, 0]))
    assert loss == np.float32((2e4 + np.log(2)) / 2)
    dlogits = backward(np.array(1, np.float32))
    assert dlogits[1, 2] == 0
    np.testing.assert_allclose(dlogits, [[0.5, -0.5, 0], [-0.25, 0.25, 0]])


@pytest.mark.parametrize("loss", [twin.cross_entropy, fused_twin.softmax_cross_entropy])
def test_float16_does_not_overflow_over_many_tokens(loss):
    logits, targets = torch.zeros(40_000, 8, dtype=torch.float16), torch.zeros(40_000, dtype=torch.long)
    assert loss(logits, targets=targets, normalizer=40_000.0).item() == pytest.approx(np.log(8), rel=1e-3)
    assert loss(logits, targets=targets).item() == pytest.approx(np.log(8), rel=1e-3)
