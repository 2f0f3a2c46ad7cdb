"""Which choices are dropped, on examples small enough to be worked out by hand; what zero, one and nothing but padding come to."""

import numpy as np
import pytest

from numpy_impl.moe.capacity import capacity, within_capacity
from numpy_impl.moe.router import router

# Five tokens with two choices each; expert 0 is wanted by t0 first, t1 second, t2 first, t3 second and t4 first.
IDS = np.array([[0, 1], [1, 0], [0, 2], [2, 0], [0, 1]])
WEIGHTS = np.array([[0.6, 0.4], [0.5, 0.5], [0.7, 0.3], [0.9, 0.1], [0.8, 0.2]])
YES, NO = True, False


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        # Expert 0 serves the first choices t0, t2; t4 comes too late, and so do the second choices. Expert 1: t1 first, then t0's second.
        ("choice", [[YES, YES], [YES, NO], [YES, YES], [YES, NO], [NO, NO]]),
        # Expert 0 serves t0 and then t1's second choice: t1 comes before t2. Expert 1 serves t0 and t1.
        ("token", [[YES, YES], [YES, YES], [NO, YES], [YES, NO], [NO, NO]]),
        # Expert 0 serves 0.8 (t4) and 0.7 (t2). Expert 1 serves 0.5 (t1) and 0.4 (t0). Expert 2 has room for both.
        ("weight", [[NO, YES], [YES, NO], [YES, YES], [YES, NO], [YES, NO]]),
    ],
)
def test_who_is_dropped(order, expected):
    kept = within_capacity(IDS, experts=3, limit=2, order=order, weights=WEIGHTS)
    assert kept.tolist() == expected


def test_padding_takes_no_place():
    real = np.array([NO, YES, YES, YES, YES])
    kept = within_capacity(IDS, experts=3, limit=2, mask=real)
    assert kept.tolist() == [[NO, NO], [YES, NO], [YES, YES], [YES, NO], [YES, YES]]     # t4 has the places that t0 had
    assert not within_capacity(IDS, experts=3, limit=2, mask=np.zeros(5, bool)).any()


def test_ties_of_weights_are_broken_in_the_order_of_choices():
    kept = within_capacity(np.array([[1, 0], [0, 1]]), experts=2, limit=1, order="weight", weights=np.full((2, 2), 0.5))
    assert kept.tolist() == [[YES, NO], [YES, NO]]


def test_all_to_one_expert_no_token_and_one_token():
    assert within_capacity(np.zeros((6, 1), np.int64), experts=4, limit=2).ravel().tolist() == [YES, YES, NO, NO, NO, NO]
    assert within_capacity(np.zeros((0, 2), np.int64), experts=4, limit=capacity(tokens=0, experts=4)).shape == (0, 2)
    assert within_capacity(np.array([3, 1]), experts=4, limit=1).tolist() == [YES, YES]


def test_a_capacity_for_every_token_drops_none_and_no_capacity_is_refused():
    ids = router(np.random.default_rng(0).standard_normal((50, 8)), k=3)[0].ids
    for order in ("choice", "token"):
        assert within_capacity(ids, experts=8, limit=capacity(tokens=50, experts=8, k=3, factor=8.0), order=order).all()
        kept = within_capacity(ids, experts=8, limit=capacity(tokens=50, experts=8, k=3), order=order)
        assert np.bincount(ids[kept], minlength=8).max() <= 19                          # ⌈3 · 50 / 8⌉
        assert (np.bincount(ids[kept], minlength=8) == np.minimum(np.bincount(ids.ravel(), minlength=8), 19)).all()
    with pytest.raises(ValueError, match="within_capacity needs limit as an integer >= 1; got limit=0"):
        within_capacity(ids, experts=8, limit=0)


def test_capacity_rounds_up_what_was_written_not_what_binary_makes_of_it():
    assert capacity(tokens=100, experts=10, factor=1.1) == 11
    assert capacity(tokens=101, experts=10) == 11
    assert capacity(tokens=64, experts=8, k=2, factor=1.25) == 20
    assert capacity(tokens=64, experts=8, factor=0.01) == 1 and capacity(tokens=64, experts=8, factor=0.01, minimum=4) == 4
    assert capacity(tokens=3, experts=2, factor=9.0) == 3
    assert capacity(tokens=100, experts=10, factor=np.float64(1.1)) == 11
