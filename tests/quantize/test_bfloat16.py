"""Rounding to bfloat16, bit for bit torch's, for every upper half of a float32."""

import numpy as np
import pytest
import torch

from numpy_impl.quantize.bfloat16 import round_to_bfloat16
from torch_impl.quantize.bfloat16 import round_to_bfloat16 as twin


@pytest.mark.parametrize("lower", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_every_upper_half_rounds_as_torch_rounds_it(lower):
    x = (np.arange(1 << 16, dtype=np.uint32) << 16 | lower).view(np.float32)
    want = torch.tensor(x).to(torch.bfloat16).float().numpy()
    for got in (round_to_bfloat16(x)[0], twin(torch.tensor(x)).numpy()):
        number = ~np.isnan(x)
        np.testing.assert_array_equal(np.isnan(got), ~number)
        np.testing.assert_array_equal(got.view(np.uint32)[number], want.view(np.uint32)[number])


def test_float64_is_rounded_twice_as_torch_does():
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1e39, -1e-50, np.nan])               # the first is no tie, but float32 makes it one
    want = torch.tensor(x).to(torch.bfloat16).double().numpy()
    np.testing.assert_array_equal(round_to_bfloat16(x)[0], want)
    np.testing.assert_array_equal(twin(torch.tensor(x)), want)


def test_the_gradient_is_not_rounded():
    x = torch.tensor([1.003], requires_grad=True)
    twin(x).backward(torch.tensor([1.001]))
    assert x.grad.item() == np.float32(1.001)
    assert round_to_bfloat16(x.detach().numpy())[1](np.float32([1.001])) == np.float32(1.001)


def test_the_relative_error_is_below_one_in_256_and_comes_near_it():
    rng = np.random.default_rng(2)
    x = np.ldexp(rng.uniform(1, 2, 100_000).astype(np.float32), rng.integers(-126, 127, 100_000))
    error = np.abs(round_to_bfloat16(x)[0].astype(np.float64) / x - 1).max()
    assert 0.99 * 2**-8 < error < 2**-8
