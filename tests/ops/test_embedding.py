"""The embedding against torch's, at sizes where ids repeat often, come in runs of many lengths and need more than sixteen bits."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.embedding as by_hand
import torch_impl.ops.embedding as twin


@pytest.mark.parametrize("n_rows,width,padding_idx", [(50, 33, None), (70_000, 3, -1), (1, 4, None), (1, 4, 0)])
def test_gradients_of_many_repeated_ids(n_rows, width, padding_idx):
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.3, (7, 900)) - 1, n_rows - 1)
    weight, dy = rng.standard_normal((n_rows, width)), rng.standard_normal((7, 900, width))
    y, backward = by_hand.embedding(weight, ids=ids, padding_idx=padding_idx)
    module = torch.nn.Embedding(n_rows, width, padding_idx, _weight=torch.tensor(weight))
    want = module(torch.tensor(ids))
    want.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, want.detach())
    np.testing.assert_allclose(backward(dy), module.weight.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_ids_of_any_integer_type(dtype):
    weight, ids = np.arange(6.0).reshape(3, 2), np.array([2, 0, 2], dtype)
    y, backward = by_hand.embedding(weight, ids=ids)
    np.testing.assert_array_equal(y, weight[[2, 0, 2]])
    np.testing.assert_array_equal(backward(np.ones((3, 2))), [[1, 1], [0, 0], [2, 2]])
    np.testing.assert_array_equal(twin.embedding(torch.tensor(weight), ids=torch.tensor(ids)), y)
