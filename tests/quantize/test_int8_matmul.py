"""Exact sums of 8-bit products: against integers in 64 bits, at the widest that is allowed, and against bitsandbytes and torch."""

import numpy as np
import pytest
import torch

import numpy_impl.quantize.int8_matmul as by_hand
import torch_impl.quantize.int8_matmul as twin
from numpy_impl.quantize.int8 import dequantize_int8_zero_point, quantize_int8_zero_point


@pytest.mark.parametrize("width,kinds,lowest", [(131071, ("int8", "int8"), -128), (65793, ("uint8", "int8"), -128),
                                                (33025, ("uint8", "uint8"), 255)])
def test_the_widest_sum_of_the_largest_products_does_not_overflow(width, kinds, lowest):
    a, b = (np.full((1, width), 255 if kind == "uint8" else lowest, dtype=kind) for kind in kinds)
    want = width * int(a[0, 0]) * int(b[0, 0])
    assert want < 2**31 <= abs(want) * (width + 1) / width
    assert by_hand.int8_matmul(a, b).item() == want
    for kernel in ("int_mm", "plain"):
        assert twin.int8_matmul(torch.tensor(a), torch.tensor(b), kernel=kernel).item() == want


def test_sums_that_single_precision_would_round_are_exact():
    rng = np.random.default_rng(0)
    a, b = (np.where(rng.random((9, 4096)) < 0.01, rng.integers(-128, 128, (9, 4096)), -128).astype(np.int8) for _ in range(2))
    want = a.astype(np.int64) @ b.astype(np.int64).T
    assert (a.astype(np.float32) @ b.astype(np.float32).T != want).any()
    np.testing.assert_array_equal(by_hand.int8_matmul(a, b), want)


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 1), (2, 1, 3), (70, 1030, 33), (0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_every_kernel_agrees_with_integers_in_64_bits(shape):
    rows, width, outputs = shape
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (rows, width), dtype=np.uint8), rng.integers(-128, 128, (outputs, width), dtype=np.int8)
    p, q = rng.integers(0, 256, rows), rng.integers(-128, 128, outputs)
    want = (a.astype(np.int64) - p[:, None]) @ (b.astype(np.int64) - q[:, None]).T
    np.testing.assert_array_equal(by_hand.int8_matmul(a, b, a_zero_point=p, b_zero_point=q), want)
    for kernel in ("auto", "plain", "int_mm"):
        if kernel == "int_mm" and (min(shape) == 0 or width == 1):
            continue
        got = twin.int8_matmul(*map(torch.tensor, (a, b)), a_zero_point=torch.tensor(p), b_zero_point=torch.tensor(q), kernel=kernel)
        assert got.dtype == torch.int32
        np.testing.assert_array_equal(got, want)


def test_it_is_the_product_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    rng = np.random.default_rng(2)
    for shape in ((3, 5, 4), (20, 64, 30), (7, 129, 65)):
        a, b = (rng.integers(-127, 128, (n, shape[1]), dtype=np.int8) for n in (shape[0], shape[2]))
        want = functional.int8_linear_matmul(torch.tensor(a), torch.tensor(b))
        np.testing.assert_array_equal(by_hand.int8_matmul(a, b), want)


def test_zero_points_make_the_product_of_what_the_codes_stand_for():
    rng = np.random.default_rng(3)
    x, w = rng.random((6, 40)), rng.standard_normal((5, 40)) + 0.5
    a, b = quantize_int8_zero_point(x, per="token"), quantize_int8_zero_point(w, per="channel", signed=True)
    y = by_hand.int8_matmul(a.codes, b.codes, a_zero_point=a.zero_point, b_zero_point=b.zero_point) * a.scale[:, None] * b.scale
    back = [dequantize_int8_zero_point(q.codes, scale=q.scale, zero_point=q.zero_point, per="token", dtype=np.float64) for q in (a, b)]
    np.testing.assert_allclose(y, back[0] @ back[1].T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y, x @ w.T, atol=0.1)


def test_the_kernel_that_cannot_is_refused():
    one = torch.ones(2, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="K > 1 for int_mm"):
        twin.int8_matmul(one, one, kernel="int_mm")
