"""Straight-through quantization against torch's kernels; what the paper says at the ends of the range; and that codes can be learnt."""

import math

import numpy as np
import pytest
import torch

import numpy_impl.quantize.straight_through as by_hand
import torch_impl.quantize.straight_through as twin


@pytest.mark.parametrize("bits,signed", [(8, True), (8, False), (4, True), (2, False)])
def test_fake_quantization_is_torch_s(bits, signed):
    rng = np.random.default_rng(0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    x = rng.standard_normal((6, 5, 40)).astype(np.float32)
    x[0] = np.round(x[0] * 8) / 8                                             # ties, with a scale of 1/4
    dy = rng.standard_normal(x.shape).astype(np.float32)
    for axis in (None, 0, 1, -1):
        shape = () if axis is None else (x.shape[axis],)
        scale = np.asarray(rng.choice([0.25, 0.03, 0.7], shape).astype(np.float32))
        zero_point = np.asarray(rng.integers(low, high + 1, shape))
        t = torch.tensor(x, requires_grad=True)
        if axis is None:
            want = torch.fake_quantize_per_tensor_affine(t, float(scale), int(zero_point), low, high)
        else:
            args = torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)
            want = torch.fake_quantize_per_channel_affine(t, *args, axis % 3, low, high)
        want.backward(torch.tensor(dy))
        y, backward = by_hand.fake_quantize(x, scale=scale, zero_point=zero_point, bits=bits, signed=signed, axis=axis)
        np.testing.assert_array_equal(y, want.detach())
        np.testing.assert_array_equal(backward(dy), t.grad)


@pytest.mark.parametrize("axis", [None, 0])
def test_the_learned_step_has_torch_s_gradient_but_for_the_half_steps_beyond_the_last_code(axis):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 300)).astype(np.float32)
    scale = np.full(() if axis is None else 4, 0.11, np.float32)
    v = x / scale.max()
    x = np.where(((v > 7) & (v < 7.6)) | ((v > -8.6) & (v < -8)), 0.5, x).astype(np.float32)  # torch lets the gradient through there
    dy = rng.standard_normal(x.shape).astype(np.float32)
    t, s = torch.tensor(x, requires_grad=True), torch.tensor(scale.reshape(-1), requires_grad=True)
    zero = torch.zeros(scale.size)
    if axis is None:
        want = torch._fake_quantize_learnable_per_tensor_affine(t, s, zero, -8, 7, 1 / math.sqrt(x.size * 7))
    else:
        want = torch._fake_quantize_learnable_per_channel_affine(t, s, zero, 0, -8, 7, 1 / math.sqrt(300 * 7))
    want.backward(torch.tensor(dy))
    y, backward = by_hand.learned_step_quantize(x, scale, bits=4, axis=axis)
    dx, dscale = backward(dy)
    np.testing.assert_allclose(y, want.detach(), rtol=1e-6)
    np.testing.assert_array_equal(dx, t.grad)
    np.testing.assert_allclose(dscale.reshape(-1), s.grad, rtol=1e-4, atol=1e-6)


def test_the_ends_of_the_range_are_the_paper_s():
    v = np.array([-9.0, -8.0, -7.8, 0.3, 7.0, 7.2])                           # steps; codes from −8 to 7
    y, backward = by_hand.learned_step_quantize(v, np.array(1.0), bits=4, scaled_gradient=False)
    np.testing.assert_array_equal(y, [-8, -8, -8, 0, 7, 7])
    slopes = [backward(np.eye(6)[i])[1] for i in range(6)]
    np.testing.assert_allclose(slopes, [-8, -8, -0.2, -0.3, 7, 7])
    np.testing.assert_array_equal(backward(np.ones(6))[0], [0, 0, 1, 1, 0, 0])
    t = torch.tensor(v, requires_grad=True)
    twin.learned_step_quantize(t, torch.tensor(1.0, dtype=t.dtype), bits=4).sum().backward()
    np.testing.assert_array_equal(t.grad, [0, 0, 1, 1, 0, 0])


def test_infinite_numbers_get_the_last_codes_and_leave_gradients_finite():
    x = np.array([np.inf, -np.inf, 0.3])
    y, backward = by_hand.learned_step_quantize(x, np.array(0.5), bits=3)
    np.testing.assert_array_equal(y, [1.5, -2, 0.5])
    dx, dscale = backward(np.ones(3))
    np.testing.assert_array_equal(dx, [0, 0, 1])
    assert np.isfinite(dscale)
    t, step = torch.tensor(x, requires_grad=True), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    twin.learned_step_quantize(t, step, bits=3).sum().backward()
    np.testing.assert_array_equal(t.grad, dx)
    assert step.grad.item() == pytest.approx(float(dscale))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("step", [2e-38, 1e-3, 3e38])
def test_numbers_at_the_ends_of_float32_get_codes_and_gradients_without_a_warning(step):
    """x / scale may overflow, which the codes cut off, and so may dy · scale, which no gradient needs."""
    x, scale, dy = np.array([3e38, -3e38, 1e-38, 0], np.float32), np.array(step, np.float32), np.array([1, 2, 3, 4], np.float32)
    y, backward = by_hand.learned_step_quantize(x, scale)
    dx, dscale = backward(dy)
    t, s = torch.tensor(x, requires_grad=True), torch.tensor(scale, requires_grad=True)
    want = twin.learned_step_quantize(t, s)
    want.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, want.detach())
    np.testing.assert_array_equal(dx, t.grad)
    np.testing.assert_allclose(dscale, s.grad, rtol=1e-5)
    assert np.isfinite(dx).all() and np.isfinite(dscale)
    y, backward = by_hand.fake_quantize(x, scale=scale)
    want = torch.fake_quantize_per_tensor_affine(torch.tensor(x), step, 0, -128, 127)
    np.testing.assert_array_equal(y, want)
    assert np.isfinite(backward(dy)).all()


def test_codes_of_three_bits_and_their_step_are_learnt_through_the_rounding():
    """Least squares with weights that can only take eight values: the numbers behind the codes and the step are what moves."""
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((200, 12))
    target = inputs @ (0.35 * rng.integers(-4, 4, 12))
    weight = rng.standard_normal(12) * 0.3
    scale = by_hand.learned_step_start(weight, bits=3)
    losses = []
    for _ in range(600):
        quantized, backward = by_hand.learned_step_quantize(weight, scale, bits=3)
        error = inputs @ quantized - target
        losses.append((error * error).mean())
        dweight, dscale = backward(inputs.T @ error * (2 / len(error)))
        weight, scale = weight - 0.02 * dweight, scale - 0.02 * dscale
    assert np.unique(quantized).size <= 8
    assert min(losses[-50:]) < 0.02 * losses[0]


def test_the_first_step_of_nothing_and_of_zeros_is_one():
    np.testing.assert_array_equal(by_hand.learned_step_start(np.zeros((2, 3)), axis=0), [1, 1])
    assert by_hand.learned_step_start(np.zeros((0, 3))).item() == 1
    assert by_hand.learned_step_start(np.full(5, -2.0), bits=4).item() == pytest.approx(4 / math.sqrt(7))
