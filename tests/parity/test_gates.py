"""The gates themselves: each trap that other harnesses fell into must be refused here."""

import math

import numpy as np
import pytest

from parity import gates
from parity.gates import Disagreement


def gate64(got, want, role="forward", cotangent=0.0, change=0.0):
    return gates.exact64("y", role, got, want, cotangent, lambda: change)


def gate32(got, single, want, torch_error=0.0, change=0.0, role="forward"):
    return gates.single32("y", role, got, single, want, 0.0, torch_error, change)


def test_nan_where_a_number_was_expected_fails():
    with pytest.raises(Disagreement, match="NaN pattern"):
        gate64(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_number_where_nan_was_expected_fails():
    with pytest.raises(Disagreement, match="NaN pattern"):
        gate64(np.array([1.0, 2.0]), np.array([1.0, np.nan]))


def test_infinities_of_other_sign_fail():
    with pytest.raises(Disagreement, match="inf pattern"):
        gate64(np.array([np.inf]), np.array([-np.inf]))


def test_same_nan_and_infinities_agree():
    values = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert gate64(values, values.copy()).absolute == 0


def test_a_nan_tolerance_fails():
    with pytest.raises(Disagreement):
        gates.within("y", np.array([1.0]), np.array([2.0]), math.nan, "a trap")


@pytest.mark.parametrize("sign", [1, -1])
def test_both_signs_of_an_error_count(sign):
    with pytest.raises(Disagreement):
        gate64(np.array([1.0 + sign * 1e-6]), np.array([1.0]))


def test_a_scalar_does_not_stand_for_an_array():
    with pytest.raises(Disagreement, match="shape"):
        gate64(np.array(1.0), np.ones(3))


def test_tolerance_does_not_grow_with_the_size_of_the_array():
    want = np.ones(10_000)
    got = want.copy()
    got[77] += 1e-7
    with pytest.raises(Disagreement, match=r"\(77,\)"):
        gate64(got, want)


def test_missing_gradient_is_not_zero_gradient():
    with pytest.raises(Disagreement):
        gate64(None, np.zeros(3), role="gradient")


def test_integers_agree_exactly_or_not_at_all():
    gate64(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(Disagreement, match="exactly 2"):
        gate64(np.array([1, 3]), np.array([1, 2]))


def test_float_for_integer_fails():
    with pytest.raises(Disagreement, match="dtype"):
        gate64(np.array([1.0, 2.0]), np.array([1, 2]))


def test_gradient_of_zero_is_measured_by_its_cotangent():
    gate64(np.array([1e-10]), np.array([0.0]), role="gradient", cotangent=1.0)
    with pytest.raises(Disagreement):
        gate64(np.array([1e-10]), np.array([0.0]), role="gradient", cotangent=1e-3)


def test_a_wrong_digit_in_a_constant_fails_in_float64_alone():
    x = np.linspace(-3, 3, 50)
    right = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    wrong = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.0447 * x * x * x)))
    with pytest.raises(Disagreement):
        gate64(wrong, right)


def test_float32_promise():
    want = np.array([100.0])
    single = np.array([100.0], dtype=np.float32)
    gate32(np.array([100.0005], dtype=np.float32), single, want, torch_error=1e-4)  # 5e-6 of scale
    with pytest.raises(Disagreement, match="promise"):
        gate32(np.array([100.002], dtype=np.float32), single, want, torch_error=3e-4)


def test_numpy_may_not_be_much_worse_than_torch():
    want, single = np.array([1.0]), np.array([1.0], dtype=np.float32)
    with pytest.raises(Disagreement, match="8·E"):
        gate32(np.array([1.0 + 4e-6], dtype=np.float32), single, want, torch_error=0.0)


def test_ill_conditioned_tensors_are_marked_and_still_held_to_torch():
    want, single = np.array([1e-3]), np.array([2e-3], dtype=np.float32)
    assert gate32(np.array([3e-3], dtype=np.float32), single, want, torch_error=1e-3).ill_conditioned
    with pytest.raises(Disagreement):
        gate32(np.array([1.0], dtype=np.float32), single, want, torch_error=1e-3)


def test_torch_overflow_is_ill_conditioned_not_agreement():
    error = gate32(np.array([np.inf], dtype=np.float32), np.array([np.inf], dtype=np.float32), np.array([1e39]), torch_error=math.inf)
    assert error.ill_conditioned


def test_size_zero_agrees_with_itself():
    assert gate64(np.zeros((0, 3)), np.zeros((0, 3))).absolute == 0
