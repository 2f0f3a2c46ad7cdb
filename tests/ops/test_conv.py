"""Convolutions against the definition, written as the loops one would never run, and how much memory im2col takes."""

import itertools
import tracemalloc

import numpy as np
import pytest

import numpy_impl.ops.conv as conv


def by_definition(x, weight, stride, padding, dilation, groups):
    n, _, h, w = x.shape
    o, c, kh, kw = weight.shape
    out_h = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, out_h, out_w))
    for b, oo, p, q, cc, i, j in itertools.product(*map(range, (*y.shape, c, kh, kw))):
        row, column = p * stride[0] + i * dilation[0] - padding[0], q * stride[1] + j * dilation[1] - padding[1]
        if 0 <= row < h and 0 <= column < w:
            y[b, oo, p, q] += weight[oo, cc, i, j] * x[b, oo // (o // groups) * c + cc, row, column]
    return y


@pytest.mark.parametrize("stride, padding, dilation, groups", [
    ((1, 1), (0, 0), (1, 1), 1),
    ((2, 1), (1, 0), (1, 2), 1),
    ((1, 3), (2, 1), (2, 1), 2),
    ((2, 2), (0, 2), (1, 1), 4),
])
def test_conv2d_is_its_definition(stride, padding, dilation, groups):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 6, 7)), rng.standard_normal((8, 4 // groups, 3, 2))
    y, _ = conv.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    np.testing.assert_allclose(y, by_definition(x, weight, stride, padding, dilation, groups), rtol=0, atol=1e-12)


def test_conv1d_is_numpys_correlate():
    x, weight = np.random.default_rng(0).standard_normal(50), np.random.default_rng(1).standard_normal(7)
    for padding, mode in ((0, "valid"), (3, "same"), (6, "full")):
        y, _ = conv.conv1d(x[None, None], weight[None, None], padding=padding)
        np.testing.assert_allclose(y[0, 0], np.correlate(x, weight, mode), rtol=0, atol=1e-12)


def test_the_column_matrix_is_never_there_as_a_whole():
    x, weight = np.ones((64, 4, 32, 32), np.float32), np.ones((4, 4, 5, 5), np.float32)
    tracemalloc.start()
    try:
        y, backward = conv.conv2d(x, weight, padding=2)
        backward(y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * x.nbytes                  # the matrix alone would be 25 times as large
