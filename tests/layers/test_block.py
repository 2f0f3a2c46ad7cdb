"""The block against torch.nn.TransformerEncoderLayer, and against transformers where PyTorch has no such order."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from byhand.configs.deepnorm import deepnorm, deepnorm_pair
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


class Double:
    """torch, in which float32 is float64: transformers computes norms and softmax in what it calls float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def theirs_of(monkeypatch, family):
    """transformers' modules of one family of models, in float64 throughout, and its config class."""
    transformers = pytest.importorskip("transformers")
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    monkeypatch.setattr(module, "torch", Double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return module, {"gptj": transformers.GPTJConfig, "gemma2": transformers.Gemma2Config}[family]


def agrees(ours, theirs, names, call):
    """Outputs and gradients of one of our blocks and one of theirs, filled alike; `names` map our parameters to theirs."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, value in ours.state_dict().items():
            value[...] = rng.standard_normal(value.shape) / np.sqrt(value.shape[-1])
            if name in names:
                theirs.get_parameter(names[name]).copy_(torch.tensor(value))
            else:
                value[...] = 0                                        # a bias that they have not
    x, dy = rng.standard_normal((2, 3, 5, 8))
    hidden = torch.full((5, 5), -torch.inf).triu(1)
    leaf = torch.tensor(x, requires_grad=True)
    want = call(leaf, hidden.double()[None, None])
    want.backward(torch.tensor(dy))
    y, backward = ours.forward(x, causal=True)
    dx, _, grads = backward(dy)
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-11)
    np.testing.assert_allclose(dx, leaf.grad, rtol=0, atol=1e-10)
    flat = flatten(grads)
    assert names.keys() <= flat.keys()
    for name, other in names.items():
        np.testing.assert_allclose(flat[name], theirs.get_parameter(other).grad, rtol=0, atol=1e-10, err_msg=name)


def test_parallel_is_gpt_js_layer(monkeypatch):
    module, config = theirs_of(monkeypatch, "gptj")
    config = config(n_embd=8, n_head=2, n_inner=12, rotary_dim=2, n_positions=8, activation_function="gelu_new", attn_pdrop=0.0,
                    resid_pdrop=0.0, attn_implementation="eager")
    theirs = module.GPTJBlock(config, layer_idx=0).double()
    ours = Block(8, 2, 12, order="parallel", activation="gelu_tanh", dtype=np.float64)
    names = {f"norm1.{end}": f"ln_1.{end}" for end in ("weight", "bias")}
    names |= {f"attn.{a}_proj.weight": f"attn.{b}_proj.weight" for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))}
    names |= {f"mlp.{a}_proj.{end}": f"mlp.{b}.{end}" for a, b in (("up", "fc_in"), ("down", "fc_out")) for end in ("weight", "bias")}
    still = torch.zeros(3, 5, dtype=torch.long)                       # all at position 0: nothing is turned
    agrees(ours, theirs, names, lambda x, mask: theirs(x, attention_mask=mask, position_ids=still)[0])


def test_sandwich_is_gemma_2s_layer(monkeypatch):
    module, config = theirs_of(monkeypatch, "gemma2")
    config = config(hidden_size=8, num_attention_heads=2, num_key_value_heads=2, head_dim=3, intermediate_size=12, num_hidden_layers=1,
                    query_pre_attn_scalar=5, attn_logit_softcapping=None, hidden_activation="gelu", attn_implementation="eager")
    theirs = module.Gemma2DecoderLayer(config, layer_idx=0).double()
    ours = Block(8, 2, 12, order="sandwich", norm="rms", activation="geglu", bias=False, eps=1e-6, head_width=3, scale=5**-0.5,
                 dtype=np.float64)
    monkeypatch.setattr(module.Gemma2RMSNorm, "forward", lambda self, x: self._norm(x) * self.weight)   # theirs counts from 1
    norms = {"norm1": "input_layernorm", "norm1_after": "post_attention_layernorm", "norm2": "pre_feedforward_layernorm",
             "norm2_after": "post_feedforward_layernorm"}
    names = {f"{a}.weight": f"{b}.weight" for a, b in norms.items()}
    names |= {f"attn.{letter}_proj.weight": f"self_attn.{letter}_proj.weight" for letter in "qkvo"}
    names |= {f"mlp.{part}_proj.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    still = (torch.ones(3, 5, 3).double(), torch.zeros(3, 5, 3).double())                               # no angle: nothing is turned
    agrees(ours, theirs, names, lambda x, mask: theirs(x, position_embeddings=still, attention_mask=mask))


def test_deepnorms_numbers_are_those_of_its_paper():
    assert deepnorm(100) == (200**0.25, 800**-0.25)                   # encoder only and decoder only: (2N)^¼, (8N)^−¼
    encoder, decoder = deepnorm_pair(18, 6)
    assert encoder == pytest.approx((0.81 * (18**4 * 6) ** (1 / 16), 0.87 * (18**4 * 6) ** (-1 / 16)))
    assert decoder == pytest.approx((18**0.25, 72**-0.25))
    for bad in (lambda: deepnorm(0), lambda: deepnorm_pair(6, 0), lambda: deepnorm_pair(0.5, 6)):
        with pytest.raises(ValueError, match="as an integer >= 1"):
            bad()


def test_deepnorm_keeps_a_deep_stacks_update_small():
    """What the paper proves: with α and β, one step of gradient descent changes a deep stack's output as little as a shallow one's."""
    def change(n_layers, **options):
        rng = np.random.default_rng(0)
        blocks = [Block(16, 2, 32, order="post", activation="relu", dtype=np.float64, rng=rng, **options) for _ in range(n_layers)]
        x, target, before = rng.standard_normal((4, 6, 16)), rng.standard_normal((4, 6, 16)), None
        for _ in range(2):
            h, pullbacks = x, []
            for block in blocks:
                h, pullback = block.forward(h)
                pullbacks.append(pullback)
            if before is None:
                before, dh = h, (h - target) / h.size
                for block, pullback in zip(blocks[::-1], pullbacks[::-1], strict=True):
                    dh, _, grads = pullback(dh)
                    for name, grad in flatten(grads).items():
                        if name.endswith("proj.weight"):              # what the theorem is about
                            block.state_dict()[name][...] -= 0.05 * grad
        return np.abs(h - before).mean()

    deep = change(48, **deepnorm(48)._asdict())
    assert deep < 4 * change(4, **deepnorm(4)._asdict())
    assert deep < change(48, beta=1.0) / 20                           # the same blocks without α and β
