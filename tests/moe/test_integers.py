"""Experts may be numbered, and their rows counted, in integers of any type: nothing wraps around where a number does not fit it."""

import numpy as np
import pytest
import torch

from numpy_impl.moe.balance_bias import balance_bias
from numpy_impl.moe.capacity import within_capacity
from numpy_impl.moe.dense_experts import dense_experts
from numpy_impl.moe.experts import experts
from numpy_impl.moe.permute import Plan, plan
from torch_impl.moe.balance_bias import balance_bias as torch_balance_bias
from torch_impl.moe.capacity import within_capacity as torch_within_capacity
from torch_impl.moe.dense_experts import dense_experts as torch_dense_experts
from torch_impl.moe.experts import experts as torch_experts
from torch_impl.moe.permute import Plan as TorchPlan
from torch_impl.moe.permute import plan as torch_plan

integers = pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
IDS, REAL = np.array([[1, 0], [1, 2], [1, 0]]), np.array([False, True, True])
KEPT = np.array([[False, False], [True, True], [False, True]])          # one place an expert, and the first token is padding


@integers
def test_more_experts_than_ids_can_number(dtype):
    ids = IDS.astype(dtype)
    assert (within_capacity(ids, experts=300, limit=1, mask=REAL) == KEPT).all()
    assert (torch_within_capacity(torch.from_numpy(ids), experts=300, limit=1, mask=torch.from_numpy(REAL)).numpy() == KEPT).all()
    ours, theirs = plan(ids, experts=300, kept=KEPT), torch_plan(torch.from_numpy(ids), experts=300, kept=torch.from_numpy(KEPT))
    for tokens, slots, counts in (ours, [array.numpy() for array in theirs]):
        assert (tokens.tolist(), slots.tolist(), counts[:4].tolist(), counts.sum()) == ([2, 1, 1], [5, 2, 3], [1, 1, 1, 0], 3)


@integers
def test_plans(dtype):
    made, rng = plan(IDS, experts=3), np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((3, 4), (3, 2), (3, 5, 4), (3, 5, 4), (3, 4, 5))]
    want, backward = experts(*arrays, plan=made)
    given = Plan(*(part.astype(dtype) for part in made))
    for ours, theirs in ((experts, torch_experts), (dense_experts, torch_dense_experts)):
        y, given_backward = ours(*arrays, plan=given)
        np.testing.assert_allclose(y, want, atol=1e-12)
        for got, gradient in zip(given_backward(y), backward(y), strict=True):
            np.testing.assert_allclose(got, gradient, atol=1e-12)
        twin = theirs(*map(torch.from_numpy, arrays), plan=TorchPlan(*map(torch.from_numpy, given)))
        np.testing.assert_allclose(twin.numpy(), want, atol=1e-12)


@integers
def test_counts_whose_sum_does_not_fit(dtype):
    bias, counts = np.zeros(3), np.array([100, 1, 27]).astype(dtype)
    assert balance_bias(bias, counts=counts, rate=1.0).tolist() == [-1, 1, 1]
    assert torch_balance_bias(torch.from_numpy(bias), counts=torch.from_numpy(counts), rate=1.0).tolist() == [-1, 1, 1]
