"""The balance losses against transformers and against what their papers say, and where their gradient goes."""

import numpy as np
import pytest
import torch

from numpy_impl.moe.load_balance import importance, load_balance
from numpy_impl.moe.router import router

mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")


def _chosen(ids, experts):
    chosen = np.zeros((*ids.shape[:-1], experts), bool)
    np.put_along_axis(chosen, ids, True, -1)
    return chosen


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_value_and_gradient_are_those_of_transformers(padded, layers):
    rng = np.random.default_rng(0)
    batch, length, experts, k = 3, 7, 8, 2
    logits = rng.standard_normal((layers, batch * length, experts))
    mask = np.arange(length) < np.array([7, 4, 1])[:, None]                             # (B, T)
    theirs = tuple(torch.tensor(z, requires_grad=True) for z in logits)
    want = mixtral.load_balancing_loss_func(theirs, experts, k, torch.tensor(mask) if padded else None)
    want.backward()

    routes, router_backward = router(logits, k=k)
    real = np.broadcast_to(mask.ravel(), (layers, batch * length)) if padded else None
    loss, backward = load_balance(routes.scores, chosen=_chosen(routes.ids, experts), mask=real)   # all layers as one, as theirs
    dlogits = router_backward(np.zeros_like(routes.weights), backward(np.array(1.0)))

    np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-6)                   # theirs sums in float32
    np.testing.assert_allclose(dlogits, np.stack([z.grad.numpy() for z in theirs]), atol=1e-7)
    assert np.abs(dlogits).max() > 1e-3


def test_the_gradient_flows_through_the_scores_and_not_through_the_choices():
    """∂loss/∂scores is E · f / N, whatever the scores are; and what moves a choice without moving a score's derivative is not in it."""
    rng = np.random.default_rng(1)
    n, experts = 12, 4
    scores = rng.random((n, experts))
    chosen = rng.random((n, experts)) < 0.4
    loss, backward = load_balance(scores, chosen=chosen)
    slope = backward(np.array(1.0))
    np.testing.assert_allclose(slope, np.broadcast_to(experts * chosen.mean(0) / n, (n, experts)), rtol=1e-13)

    # With the choices held, the loss is linear in the scores: its gradient explains every change of it, however large.
    step = rng.standard_normal(scores.shape)
    moved, _ = load_balance(scores + step, chosen=chosen)
    np.testing.assert_allclose(moved - loss, (slope * step).sum(), rtol=1e-12)
    # A choice that turns moves the loss by a jump; the gradient, that of its own scores alone, has no part for it.
    turned = chosen.copy()
    turned[0] = ~turned[0]
    jumped, backward = load_balance(scores, chosen=turned)
    assert abs(jumped - loss) > 1e-3
    np.testing.assert_allclose(backward(np.array(1.0)), np.broadcast_to(experts * turned.mean(0) / n, (n, experts)), rtol=1e-13)


def test_a_whole_router_has_no_gradient_through_its_counts():
    """Logits moved so little that no choice turns: the loss moves as its gradient says, though the counts stay where they are."""
    rng = np.random.default_rng(2)
    logits, direction = rng.standard_normal((2, 30, 5))

    def loss_at(z):
        routes, backward = router(z, k=2)
        loss, loss_backward = load_balance(routes.scores, chosen=_chosen(routes.ids, 5))
        return loss, backward(np.zeros_like(routes.weights), loss_backward(np.array(1.0))), routes.ids

    _, dlogits, ids = loss_at(logits)
    (up, _, ids_up), (down, _, ids_down) = (loss_at(logits + s * direction) for s in (1e-6, -1e-6))
    assert (ids_up == ids).all() and (ids_down == ids).all()
    np.testing.assert_allclose((up - down) / 2e-6, (dlogits * direction).sum(), rtol=1e-6)


def test_even_routing_costs_k_and_a_collapse_costs_k_times_as_many_experts_as_it_leaves_idle():
    experts, k = 8, 2
    even = _chosen(np.stack([np.arange(16) % 8, (np.arange(16) + 1) % 8], -1), experts)
    assert load_balance(np.full((16, experts), 1 / experts), chosen=even)[0] == k
    scores = np.zeros((16, experts))
    scores[:, :k] = 1 / k
    assert load_balance(scores, chosen=scores > 0)[0] == experts                        # E · k · (1 · 1/k)


def test_sequences_are_balanced_one_by_one_and_sigmoids_share_first():
    """Two sequences, each on an expert of its own: even over the batch, uneven in each of them."""
    scores = np.array([[[0.9, 0.3]] * 3, [[0.2, 0.6]] * 3])
    chosen = scores > 0.5
    assert load_balance(scores, chosen=chosen, renormalise=True)[0] == pytest.approx(2 * (0.5 * 0.5 + 0.5 * 0.5))
    assert load_balance(scores, chosen=chosen, renormalise=True, per_sequence=True)[0] == pytest.approx(2 * 0.75)
    assert load_balance(scores, chosen=chosen, per_sequence=True)[0] == pytest.approx((2 * 0.9 + 2 * 0.6) / 2)


def test_nothing_but_padding_costs_nothing():
    scores, chosen, mask = np.full((2, 3, 4), np.nan), np.ones((2, 3, 4), bool), np.zeros((2, 3), bool)
    for per_sequence in (False, True):
        for renormalise in (False, True):
            loss, backward = load_balance(scores, chosen=chosen, mask=mask, per_sequence=per_sequence, renormalise=renormalise)
            assert loss == 0 and (backward(np.array(1.0)) == 0).all()
    loss, backward = importance(scores, mask=mask)
    assert loss == 0 and (backward(np.array(1.0)) == 0).all()


def test_importance_is_the_squared_coefficient_of_variation():
    scores = np.random.default_rng(3).random((20, 6))
    total = scores.sum(0)
    assert importance(scores)[0] == pytest.approx((total.std() / total.mean()) ** 2, rel=1e-12)
    assert importance(np.full((5, 4), 0.25))[0] == 0
    assert importance(np.eye(4)[[2] * 5])[0] == pytest.approx(3)                         # all on one of E: E − 1
