"""The block against torch.nn.TransformerEncoderLayer."""

import numpy as np
import pytest
import torch
from torch import nn

from byhand.noise import Noise
from numpy_impl.layers.block import Block
from numpy_impl.layers.module import flatten


def theirs_from(state):
    """Our names -> TransformerEncoderLayer's."""
    state = {name: torch.from_numpy(value) for name, value in state.items()}
    renamed = {"norm1": "norm1", "norm2": "norm2", "mlp.up_proj": "linear1", "mlp.down_proj": "linear2",
               "attn.o_proj": "self_attn.out_proj"}
    found = {f"{theirs}.{end}": state[f"{ours}.{end}"] for ours, theirs in renamed.items() for end in ("weight", "bias")}
    for end in ("weight", "bias"):
        found[f"self_attn.in_proj_{end}"] = torch.cat([state[f"attn.{letter}_proj.{end}"] for letter in "qkv"])
    return found


@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_is_pytorchs_encoder_layer(order, activation):
    rng = np.random.default_rng(0)
    ours = Block(8, 2, 12, order=order, activation=activation, dtype=np.float64, rng=rng)
    for value in ours.state_dict().values():
        value[...] = rng.standard_normal(value.shape)
    theirs = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation=activation, norm_first=order == "pre", batch_first=True, dtype=torch.float64
    )
    theirs.load_state_dict(theirs_from(ours.state_dict()))
    x, dy = rng.standard_normal((2, 3, 5, 8))

    y, backward = ours.forward(x, causal=True)
    dx, _, grads = backward(dy)
    leaf = torch.tensor(x, requires_grad=True)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)  # there True means hidden
    want = theirs(leaf, src_mask=hidden)
    want.backward(torch.tensor(dy))

    np.testing.assert_allclose(y, want.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, leaf.grad, rtol=1e-11, atol=1e-11)
    for name, grad in theirs_from(flatten(grads)).items():
        np.testing.assert_allclose(grad, theirs.get_parameter(name).grad, rtol=1e-11, atol=1e-11)


def test_every_dropout_has_a_stream_of_its_own():
    x, noise = np.ones((1, 4, 8)), Noise(seed=1)
    outputs = [
        Block(8, 2, 12, **{site: 0.5}, dtype=np.float64, rng=np.random.default_rng(0)).forward(x, noise=noise)[0]
        for site in ("dropout", "attention_dropout", "hidden_dropout")
    ]
    plain = Block(8, 2, 12, dtype=np.float64, rng=np.random.default_rng(0)).forward(x, noise=noise)[0]
    for i, y in enumerate(outputs):
        assert not np.array_equal(y, plain)
        assert not any(np.array_equal(y, other) for other in outputs[:i])
    silent = Block(8, 2, 12, dropout=1.0, dtype=np.float64, rng=np.random.default_rng(0))
    assert np.array_equal(silent.forward(x, noise=noise)[0], x)       # both branches dropped: the skip is left
