"""A greedy text, and the sentence that explains why two are equal or where they part."""

import numpy as np
import pytest

from byhand.continuation import Continuation, compare, continue_greedily


def next_byte(ids):
    logits = np.zeros(256)
    logits[(ids[0, -1] + ids.shape[1]) % 256] = 1.0
    return logits


def test_the_likeliest_byte_is_taken_and_the_context_is_cut():
    written = continue_greedily(next_byte, b"A", count=3, context=2)
    assert written.tokens.tolist() == [66, 68, 70]            # 65+1, then a context of 2: 66+2, 68+2
    assert written.text == "BDF" and written.logits.shape == (3, 256)


def test_ties_go_to_the_lower_byte_and_bytes_that_are_no_text_are_shown_as_such():
    assert continue_greedily(lambda _: np.zeros(4), b"x", count=2, context=8).tokens.tolist() == [0, 0]
    assert Continuation(np.array([0xC3, 0x41]), np.zeros((2, 256))).text == "\ufffdA"


def pair(one, other):
    one, other = np.array(one), np.array(other)
    return compare(Continuation(one.argmax(-1), one), Continuation(other.argmax(-1), other))


def test_a_gap_wider_than_the_difference_explains_equality():
    found = pair([[3.0, 1.0, 0.0], [0.0, 1.0, 0.5]], [[3.0, 1.1, 0.0], [0.0, 1.0, 0.5]])
    assert found.parted is None and found.gap == 0.5 and found.difference == pytest.approx(0.1)
    assert "equal because" in found.reason and "0.5" in found.reason and "0.1" in found.reason


def test_a_gap_within_the_difference_is_called_chance():
    found = pair([[1.0, 0.9]], [[1.1, 0.9]])
    assert found.parted is None and found.gap == pytest.approx(0.1) and "could have changed" in found.reason


def test_parting_is_placed_and_what_follows_is_not_compared():
    found = pair([[3.0, 1.0], [1.0, 1.01], [9.0, 0.0]], [[3.0, 1.0], [1.02, 1.0], [0.0, 9.0]])
    assert found.parted == 1 and found.gap == pytest.approx(0.01) and found.difference == pytest.approx(0.02)
    assert "part at byte 1" in found.reason
