"""The decoder's block against torch.nn.TransformerDecoderLayer."""

import numpy as np
import pytest
import torch
from torch import nn

from byhand.noise import Noise
from numpy_impl.layers.cross_block import CrossBlock
from numpy_impl.layers.module import flatten


def theirs_from(state):
    """Our names -> TransformerDecoderLayer's."""
    state = {name: torch.from_numpy(value) for name, value in state.items()}
    renamed = {"norm1": "norm1", "norm_cross": "norm2", "norm2": "norm3", "mlp.up_proj": "linear1", "mlp.down_proj": "linear2",
               "attn.o_proj": "self_attn.out_proj", "cross_attn.o_proj": "multihead_attn.out_proj"}
    found = {f"{theirs}.{end}": state[f"{ours}.{end}"] for ours, theirs in renamed.items() for end in ("weight", "bias")}
    for ours, theirs in (("attn", "self_attn"), ("cross_attn", "multihead_attn")):
        for end in ("weight", "bias"):
            found[f"{theirs}.in_proj_{end}"] = torch.cat([state[f"{ours}.{letter}_proj.{end}"] for letter in "qkv"])
    return found


@pytest.mark.parametrize("order", ["pre", "post"])
def test_it_is_pytorchs_decoder_layer(order):
    rng = np.random.default_rng(0)
    ours = CrossBlock(8, 2, 12, order=order, activation="relu", dtype=np.float64, rng=rng)
    for value in ours.state_dict().values():
        value[...] = rng.standard_normal(value.shape)
    theirs = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0, norm_first=order == "pre", batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(theirs_from(ours.state_dict()))
    x, dy = rng.standard_normal((2, 3, 5, 8))
    context, known = rng.standard_normal((3, 7, 8)), np.arange(7) < np.array([[7], [4], [1]])

    y, backward = ours.forward(x, context, causal=True, context_mask=known[:, None, None])
    dx, dcontext, _, grads = backward(dy)
    leaf, source = torch.tensor(x, requires_grad=True), torch.tensor(context, requires_grad=True)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)  # there True means hidden
    want = theirs(leaf, source, tgt_mask=hidden, memory_key_padding_mask=torch.tensor(~known))
    want.backward(torch.tensor(dy))

    np.testing.assert_allclose(y, want.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, leaf.grad, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(dcontext, source.grad, rtol=1e-11, atol=1e-11)
    for name, grad in theirs_from(flatten(grads)).items():
        np.testing.assert_allclose(grad, theirs.get_parameter(name).grad, rtol=1e-11, atol=1e-11)


def test_every_dropout_has_a_stream_of_its_own():
    x, noise = np.random.default_rng(1).standard_normal((1, 4, 8)), Noise(seed=1)
    sites = ("dropout", "attention_dropout", "hidden_dropout")
    outputs = [CrossBlock(8, 2, 12, **{site: 0.5}, dtype=np.float64, rng=np.random.default_rng(0))(x, x, noise=noise) for site in sites]
    outputs.append(CrossBlock(8, 2, 12, dtype=np.float64, rng=np.random.default_rng(0))(x, x, noise=noise))
    assert not any(np.array_equal(y, other) for i, y in enumerate(outputs) for other in outputs[:i])
    silent = CrossBlock(8, 2, 12, dropout=1.0, dtype=np.float64, rng=np.random.default_rng(0))
    assert np.array_equal(silent(x, x, noise=noise), x)               # all branches dropped: the skip is left
