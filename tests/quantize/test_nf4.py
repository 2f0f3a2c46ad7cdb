"""NF4's table against the published one, and the rules by which bits are decided."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

import torch_impl.quantize.nf4 as twin
from numpy_impl.quantize.nf4 import dequantize_nf4, nf4_table, quantize_nf4

PUBLISHED = [  # QLoRA, arXiv:2305.14314, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.mark.parametrize("table", [nf4_table(), twin.nf4_table().numpy()])
def test_the_table_is_the_published_one_to_the_last_bit(table):
    assert table.dtype == np.float32
    assert table.tobytes() == np.array(PUBLISHED, dtype=np.float32).tobytes()


def nibbles(codes):
    return [half for byte in codes.tolist() for half in (byte >> 4, byte & 15)]


def test_a_tie_goes_down():
    table = nf4_table()
    midpoints = (table[:-1] + table[1:]) / 2
    x = np.concatenate([[np.float32(1)], midpoints, np.nextafter(midpoints, np.float32(2))])
    assert nibbles(quantize_nf4(x).codes)[:31] == [15, *range(15), *range(1, 16)]


def test_the_first_code_is_in_the_high_half_and_the_pad_is_the_code_of_zero():
    assert quantize_nf4(np.array([1, -1, 1], dtype=np.float32)).codes.tolist() == [0xF0, 0xF7]


def test_full_blocks_are_multiplied_by_the_reciprocal_and_a_ragged_one_is_divided():
    table, rng = nf4_table(), np.random.default_rng(0)
    midpoints = (table[:-1] + table[1:]) / 2
    absmax = rng.uniform(1, 2, 20000).astype(np.float32)
    x = rng.choice(midpoints, absmax.size) * absmax
    divided, multiplied = x / absmax, x * (1 / absmax)
    ranks = [np.searchsorted(midpoints, scaled) for scaled in (divided, multiplied)]
    seen = 0
    for i in np.flatnonzero(ranks[0] != ranks[1])[:50]:
        pair = np.array([absmax[i], x[i]])
        assert nibbles(quantize_nf4(pair, block=2).codes)[1] == ranks[1][i]
        assert nibbles(quantize_nf4(pair, block=3).codes)[1] == ranks[0][i]
        seen += 1
    assert seen == 50


def test_codes_of_normal_weights_are_nearly_but_not_quite_equally_frequent():
    """Scaled by a fixed number, as the table is derived, they are; scaled by the largest of 64, 3.88 bits of 4 are left."""
    x = np.random.default_rng(0).standard_normal(1 << 19).astype(np.float32)
    table = nf4_table()
    edges = (table[:-1] + table[1:]) / 2 * NormalDist().inv_cdf(0.9677083)
    share = np.bincount(np.searchsorted(edges, x), minlength=16) / x.size
    assert 0.055 < share.min() and share.max() < 0.072
    share = np.bincount(nibbles(quantize_nf4(x).codes), minlength=16) / x.size
    assert share[[0, 15]].max() < 0.02 and share[7] > 0.08
    assert abs(-(share * np.log2(share)).sum() - 3.88) < 0.01


def test_zeros():
    codes, absmax = quantize_nf4(np.zeros(5, dtype=np.float32), block=2)
    assert codes.tolist() == [0x77] * 3 and absmax.tolist() == [0.0, 0.0, np.float32(1e-38)]
    assert not dequantize_nf4(codes, absmax=absmax, shape=(5,), block=2).any()


def test_float64_is_rounded_to_float32_first():
    x = np.random.default_rng(1).standard_normal(1000)
    for got, want in zip(quantize_nf4(x), quantize_nf4(x.astype(np.float32)), strict=True):
        assert np.array_equal(got, want)


def test_half_precision_is_exact_in_float32():
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    for half in (x.half(), x.bfloat16()):
        for got, want in zip(twin.quantize_nf4(half), quantize_nf4(half.float().numpy()), strict=True):
            assert np.array_equal(got, want)
