"""LLM.int8() against bitsandbytes, and what it is for: a few large features that would ruin plain 8-bit products."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch

import numpy_impl.quantize.llm_int8 as by_hand
import torch_impl.quantize.llm_int8 as twin
from numpy_impl.layers.linear import Linear
from numpy_impl.quantize.int8 import quantize_int8_absmax

bitsandbytes = pytest.importorskip("bitsandbytes")


def _activations(rng, rows, width, large):
    """Normals that float16 holds, with `large` columns of some entries above 6."""
    x = rng.standard_normal((rows, width)).clip(-4, 4)
    columns = rng.choice(width, large, replace=False)
    x[:, columns] *= rng.choice([1, 5, 15], (rows, large))
    return x.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("rows,width,large", [(1, 8, 1), (5, 16, 0), (5, 16, 3), (33, 100, 7), (4, 6, 6)])
def test_codes_absmax_and_outliers_are_those_of_bitsandbytes(rows, width, large):
    rng = np.random.default_rng(0)
    for threshold in (6.0, 2.5):
        x = _activations(rng, rows, width, large)
        t = torch.tensor(x)
        codes, absmax, columns = bitsandbytes.functional.int8_vectorwise_quant(t, threshold=threshold)
        for got in (by_hand.quantize_int8_outliers(x, threshold=threshold), twin.quantize_int8_outliers(t, threshold=threshold)):
            np.testing.assert_array_equal(got.codes, codes)
            np.testing.assert_array_equal(got.absmax, absmax)
            np.testing.assert_array_equal(np.flatnonzero(got.outliers), columns)


@pytest.mark.parametrize("threshold", [6.0, 2.5, math.inf])
def test_forward_and_backward_are_those_of_bitsandbytes(threshold):
    rng = np.random.default_rng(1)
    x = _activations(rng, 12, 40, 4)
    codes, absmax = quantize_int8_absmax(rng.standard_normal((24, 40)))
    bias = rng.standard_normal(24).astype(np.float32)
    dy = rng.standard_normal((12, 24)).astype(np.float32)
    state = bitsandbytes.MatmulLtState()
    state.CB, state.SCB, state.has_fp16_weights = torch.tensor(codes), torch.tensor(absmax), False
    state.threshold = threshold if threshold < math.inf else 0.0
    A, b = torch.tensor(x, requires_grad=True), torch.tensor(bias, requires_grad=True)
    want = bitsandbytes.autograd._functions.MatMul8bitLt.apply(A, state.CB, None, b, state)  # `matmul` multiplies floats on a CPU
    want.backward(torch.tensor(dy))

    y, backward = by_hand.llm_int8_linear(x, bias, codes=codes, absmax=absmax, threshold=threshold)
    dx, dbias = backward(dy)
    fault = abs(6.200124e-05 * 127**2 - 1)  # bitsandbytes writes 1/127² (6.2000124e-05) without one of its zeros
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=2 * fault * np.abs(y).max())
    np.testing.assert_allclose(dx, A.grad, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(dbias, b.grad, rtol=1e-5, atol=1e-5)
    for kernel, error in (("plain", 1e-6), ("bitsandbytes", 2 * fault)):
        A2 = torch.tensor(x, requires_grad=True)
        got = twin.llm_int8_linear(A2, b, codes=state.CB, absmax=state.SCB, threshold=threshold, kernel=kernel)
        got.backward(torch.tensor(dy))
        np.testing.assert_allclose(got.detach(), y, rtol=0, atol=error * np.abs(y).max())
        np.testing.assert_allclose(A2.grad, dx, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(A2.detach(), x)


def test_outliers_in_full_precision_keep_what_8_bits_lose():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, 512)).astype(np.float32)
    x[:, [7, 300]] *= 60
    weight = rng.standard_normal((128, 512)).astype(np.float32) / math.sqrt(512)
    codes, absmax = quantize_int8_absmax(weight)
    want = x @ weight.T

    def error(threshold):
        y, _ = by_hand.llm_int8_linear(x, codes=codes, absmax=absmax, threshold=threshold)
        return np.linalg.norm(y - want) / np.linalg.norm(want)

    assert error(6.0) < 0.01 and error(math.inf) > 5 * error(6.0)


def test_half_precision_computes_sums_that_it_could_not_hold():
    rng = np.random.default_rng(3)
    x, weight = torch.tensor(rng.random((3, 2000)) + 1), torch.tensor(rng.random((4, 2000)) + 1)
    codes, absmax = map(torch.tensor, quantize_int8_absmax(weight.numpy()))
    want = x @ weight.T
    for dtype in (torch.float16, torch.bfloat16):
        y = twin.llm_int8_linear(x.to(dtype), codes=codes, absmax=absmax)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.double(), want, rtol=0.01)


def test_the_layer_holds_a_byte_a_weight_and_its_pullback_nothing_of_x():
    linear = Linear(300, 200, rng=np.random.default_rng(4))
    layer = by_hand.Linear8bit.from_linear(linear)
    assert sum(v.nbytes for v in layer.state_dict().values()) == 300 * 200 + 4 * 200 + 4 * 200
    assert np.abs(layer.weight - linear.weight).max() <= layer.absmax.max() / 253
    layer.bias[:] = 7
    assert not (linear.bias == 7).any()
    x = np.random.default_rng(5).standard_normal((3, 300)).astype(np.float32)
    alive = weakref.ref(x)
    y, backward = layer.forward(x)
    want = (y - 1) @ layer.weight
    del x
    gc.collect()
    assert alive() is None
    np.testing.assert_allclose(backward(y - 1)[0], want, rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_not_finite_is_refused():
    linear = Linear(3, 2)
    linear.weight[1, 1] = np.nan
    with pytest.raises(ValueError, match="quantize_int8_absmax needs x finite"):
        by_hand.Linear8bit.from_linear(linear)


def test_frozen_and_trained_biases_stay_what_they_were():
    linear = Linear(8, 4)
    assert list(by_hand.Linear8bit.from_linear(linear).parameters()) == ["bias"]
    layer = by_hand.Linear8bit.from_linear(linear.freeze())
    assert list(layer.parameters()) == []
    x = np.ones((2, 8), np.float32)
    assert layer.forward(x)[1](np.ones((2, 4), np.float32))[1] == {}
    other = torch.nn.Linear(8, 4)
    assert twin.Linear8bit.from_linear(other).bias.requires_grad
    assert not twin.Linear8bit.from_linear(other.requires_grad_(False)).bias.requires_grad


def test_casts_leave_the_scales_alone():
    layer = twin.Linear8bit(64, 8)
    absmax, weight, x = layer.absmax.clone(), layer.weight, torch.randn(3, 64)
    y = layer(x)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        layer.to(dtype)
        assert layer.weight.dtype == layer(x.to(dtype)).dtype == dtype
        assert layer.absmax.dtype == torch.float32 and torch.equal(layer.absmax, absmax)
    assert torch.equal(layer.weight, weight)
    assert torch.allclose(layer(x), y, atol=0.01)                              # the bias has been through half precision


def test_a_layer_without_memory_takes_another_s_state():
    want = twin.Linear8bit(64, 8)
    with torch.device("meta"):
        layer = twin.Linear8bit(64, 8)
    layer.load_state_dict(want.state_dict(), assign=True)
    x = torch.randn(3, 64)
    assert torch.equal(layer(x), want(x))
    empty = twin.Linear8bit(64, 8).to("meta").to_empty(device="cpu")
    empty.load_state_dict(want.state_dict())
    assert torch.equal(empty(x), want(x))


@pytest.mark.parametrize("wrong", [None, torch.nn.Conv1d(2, 3, 1)])
def test_only_a_matrix_can_be_held(wrong):
    for layer in (by_hand.Linear8bit, twin.Linear8bit):
        with pytest.raises(ValueError, match="Linear8bit needs a layer whose weight is a matrix"):
            layer.from_linear(wrong)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threshold", [6.0, 1e300, math.inf])
def test_what_float32_cannot_hold_is_an_outlier_and_no_warning(threshold):
    x = np.array([[1e300, 0.5], [-1.0, 0.25]])
    codes, absmax, outliers = by_hand.quantize_int8_outliers(x, threshold=threshold)
    np.testing.assert_array_equal(outliers, [True, False])
    np.testing.assert_array_equal(codes, [[0, 127], [0, 32]])
    np.testing.assert_array_equal(absmax, np.float32([0.5, 1.0]))
    weight = quantize_int8_absmax(np.eye(2))
    y, _ = by_hand.llm_int8_linear(x, codes=weight.codes, absmax=weight.absmax, threshold=threshold)
    np.testing.assert_allclose(y, x, rtol=0.02)


def test_both_layers_are_made_from_linear_layers_alike():
    linear = Linear(5, 4, bias=False)
    ours = by_hand.Linear8bit.from_linear(linear, threshold=3.0)
    other = torch.nn.Linear(5, 4, bias=False)
    other.weight.data = torch.tensor(linear.weight)
    theirs = twin.Linear8bit.from_linear(other, threshold=3.0)
    x = np.random.default_rng(6).standard_normal((7, 5)).astype(np.float32)
    assert ours.bias is None and theirs.bias is None and theirs.threshold == ours.threshold == 3.0
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.weight, theirs.weight)
