"""FP4's table as a format of bits, and the two codes of zero."""

import numpy as np
import pytest

import torch_impl.quantize.fp4 as twin
from numpy_impl.quantize.fp4 import dequantize_fp4, fp4_table, quantize_fp4

TWELFTHS = [0, 0.0625, 8, 12, 4, 6, 2, 3]   # by the three lower bits: two of exponent, which counts down, and one of mantissa


@pytest.mark.parametrize("table", [fp4_table(), twin.fp4_table().numpy()])
def test_the_table(table):
    want = np.array(TWELFTHS, dtype=np.float32) / np.float32(12)
    assert table.dtype == np.float32
    assert table.tobytes() == np.concatenate([want, -want]).tobytes()


def test_levels_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    np.testing.assert_array_equal(fp4_table(), functional.get_4bit_type("fp4", device="cpu"))


def test_zero_and_what_is_just_below_it_is_code_0_and_what_is_just_above_code_8():
    x = np.array([1, 0, -0.0, 1e-45, -1e-45, 1e-3, -1e-3, 0.004], dtype=np.float32)
    codes, absmax = quantize_fp4(x)
    assert codes.tolist() == [0x30, 0x08, 0x08, 0x01]
    assert dequantize_fp4(codes, absmax=absmax, shape=(8,)).tolist() == [1, 0, 0, 0, 0, 0, 0, np.float32(0.0625) / np.float32(12)]


def test_a_tie_goes_down():
    levels = np.unique(fp4_table())                                     # fifteen: the two zeros are equal
    x = np.concatenate([[np.float32(1)], (levels[:-1] + levels[1:]) / 2])
    back = dequantize_fp4(quantize_fp4(x).codes, absmax=np.ones(1, dtype=np.float32), shape=x.shape)
    assert back.tolist() == [1.0, *levels[:-1].tolist()]
