"""8-bit codes against bitsandbytes and torch's own quantizers, bit for bit."""

import numpy as np
import pytest
import torch

import numpy_impl.quantize.int8 as by_hand
import torch_impl.quantize.int8 as twin

SHAPES = [(1, 1), (1, 7), (3, 1), (2, 64), (5, 33), (17, 257), (64, 1024)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_absmax_codes_are_those_of_bitsandbytes(dtype):
    functional = pytest.importorskip("bitsandbytes.functional")
    rng = np.random.default_rng(0)
    for i in range(100):
        shape, scale = SHAPES[i % len(SHAPES)], 10.0 ** rng.integers(-3, 4)
        x = torch.tensor(scale * rng.standard_normal(shape)).to(dtype)
        if i % 3 == 0:
            x = (x / scale * 4).round() / 4                               # ties, of codes and of largest entries
        x[x.abs().amax(1) == 0] = 1                                       # bitsandbytes divides 0 by 0 there
        codes, absmax, _ = functional.int8_vectorwise_quant(x)
        for got in (by_hand.quantize_int8_absmax(x.float().numpy()), by_hand.quantize_int8_absmax(x.double().numpy()),
                    twin.quantize_int8_absmax(x)):
            np.testing.assert_array_equal(got.codes, codes)
            np.testing.assert_array_equal(got.absmax, absmax)
        if dtype == torch.float32:
            back = functional.int8_vectorwise_dequant(codes, absmax).numpy()  # which multiplies by a rounded 1/127
            np.testing.assert_allclose(by_hand.dequantize_int8_absmax(codes.numpy(), absmax=absmax.numpy()), back, rtol=3e-7)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_zero_point_codes_come_back_as_torch_s_fake_quantization_gives_them(per, signed):
    rng = np.random.default_rng(1)
    low, high = (-128, 127) if signed else (0, 255)
    for shift in (-3.0, -0.5, 0.0, 0.7, 4.0):
        x = (rng.standard_normal((6, 50)) + shift).astype(np.float32)
        codes, scale, zero_point = by_hand.quantize_int8_zero_point(x, per=per, signed=signed)
        assert codes.min() >= low and codes.max() <= high
        got = by_hand.dequantize_int8_zero_point(codes, scale=scale, zero_point=zero_point, per=per)
        t = torch.tensor(x)
        if per == "tensor":
            want = torch.fake_quantize_per_tensor_affine(t, float(scale), int(zero_point), low, high)
        else:
            want = torch.fake_quantize_per_channel_affine(t, torch.tensor(scale), torch.tensor(zero_point), 0, low, high)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("value", [3.0, -0.3, 0.0, 1e-41, -3e38])
@pytest.mark.parametrize("per", ["tensor", "channel", "token"])
def test_constants_and_zeros_come_back(per, value):
    x = np.full((3, 4), value, dtype=np.float32)
    codes, absmax = by_hand.quantize_int8_absmax(x, per=per)
    for got in (by_hand.dequantize_int8_absmax(codes, absmax=absmax, per=per), _there_and_back(x, per)):
        np.testing.assert_allclose(got, x, rtol=1e-6, atol=1e-36)


def test_a_whole_range_wider_than_float32_does_not_overflow():
    x = np.array([3e38, -3e38, 0.0], dtype=np.float32)
    got = _there_and_back(x, "tensor")
    np.testing.assert_allclose(got, x, rtol=0.01)
    assert got[2] == 0


def test_channel_and_token_are_the_same_for_a_matrix_and_differ_for_filters():
    x = np.random.default_rng(2).standard_normal((4, 3, 5))
    matrix = x.reshape(4, 15)
    for quantize in (by_hand.quantize_int8_absmax, by_hand.quantize_int8_zero_point):
        for one, other in zip(quantize(matrix, per="channel"), quantize(matrix, per="token"), strict=True):
            np.testing.assert_array_equal(one, other)
        assert [part.shape for part in quantize(x, per="channel")[1:]] == [(4,)] * (len(quantize(x)) - 1)
        assert [part.shape for part in quantize(x, per="token")[1:]] == [(4, 3)] * (len(quantize(x)) - 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dequantization_takes_the_dtype_it_is_asked_for(dtype):
    codes, absmax = by_hand.quantize_int8_absmax(np.random.default_rng(3).standard_normal((4, 5)))
    got = by_hand.dequantize_int8_absmax(codes, absmax=absmax, dtype=dtype)
    want = twin.dequantize_int8_absmax(torch.tensor(codes), absmax=torch.tensor(absmax), dtype=getattr(torch, dtype))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def _there_and_back(x, per):
    codes, scale, zero_point = by_hand.quantize_int8_zero_point(x, per=per)
    return by_hand.dequantize_int8_zero_point(codes, scale=scale, zero_point=zero_point, per=per)


@pytest.mark.parametrize("dtype", [np.int32, np.complex64])
def test_other_dtypes_are_refused(dtype):
    codes = np.zeros((2, 3), np.int8)
    with pytest.raises(ValueError, match="dequantize_int8_absmax needs dtype"):
        by_hand.dequantize_int8_absmax(codes, absmax=np.ones(2), dtype=dtype)
    with pytest.raises(ValueError, match="dequantize_int8_zero_point needs dtype"):
        by_hand.dequantize_int8_zero_point(codes, scale=np.array(1.0), zero_point=np.array(0), dtype=dtype)
