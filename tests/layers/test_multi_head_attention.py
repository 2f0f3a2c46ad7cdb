"""Multi-head attention against torch.nn.MultiheadAttention, whose three input projections stand in one matrix."""

import numpy as np
import pytest
import torch
from torch import nn

from numpy_impl.layers.module import flatten
from numpy_impl.layers.multi_head_attention import MultiHeadAttention


@pytest.mark.parametrize("crosses", [False, True])
def test_it_is_pytorchs_own(crosses):
    rng = np.random.default_rng(0)
    ours, theirs = MultiHeadAttention(6, 3, dtype=np.float64, rng=rng), nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64)
    state = {name: torch.from_numpy(value) for name, value in ours.state_dict().items()}
    theirs.load_state_dict({
        **{f"in_proj_{end}": torch.cat([state[f"{letter}_proj.{end}"] for letter in "qkv"]) for end in ("weight", "bias")},
        **{f"out_proj.{end}": state[f"o_proj.{end}"] for end in ("weight", "bias")},
    })
    x, dy = rng.standard_normal((2, 2, 4, 6))
    context = rng.standard_normal((2, 5, 6)) if crosses else None
    mask = rng.random((4, 5 if crosses else 4)) < 0.7
    mask[:, 0] = True

    y, backward = ours.forward(x, context, mask=mask)
    dx, dcontext, _, grads = backward(dy)
    leaf = torch.tensor(x, requires_grad=True)
    source = torch.tensor(context, requires_grad=True) if crosses else leaf
    want, _ = theirs(leaf, source, source, attn_mask=torch.tensor(~mask), need_weights=False)  # there True means hidden
    want.backward(torch.tensor(dy))

    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx, leaf.grad, rtol=0, atol=1e-12)
    if crosses:
        np.testing.assert_allclose(dcontext, source.grad, rtol=0, atol=1e-12)
    else:
        assert dcontext is None
    flat = flatten(grads)
    for end in ("weight", "bias"):
        np.testing.assert_allclose(
            np.concatenate([flat[f"{letter}_proj.{end}"] for letter in "qkv"]), getattr(theirs, f"in_proj_{end}").grad, rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(flat[f"o_proj.{end}"], getattr(theirs.out_proj, end).grad, rtol=0, atol=1e-12)
