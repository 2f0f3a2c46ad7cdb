"""Latent attention against transformers' DeepseekV2Attention, which turns neighbours and writes the norms and the softmax in float32."""

import numpy as np
import pytest
import torch

from numpy_impl.layers.latent_attention import MultiHeadLatentAttention
from numpy_impl.layers.module import flatten
from numpy_impl.positions.rotary import rotary_frequencies, rotary_table
from torch_impl.layers.latent_attention import MultiHeadLatentAttention as TorchMultiHeadLatentAttention

transformers = pytest.importorskip("transformers")
deepseek = pytest.importorskip("transformers.models.deepseek_v2.modeling_deepseek_v2")

T, D, H, C, E, R, W = 7, 12, 3, 8, 4, 6, 3
NAMES = {"kv_a_proj": "kv_a_proj_with_mqa", "kv_a_norm": "kv_a_layernorm", "q_a_norm": "q_a_layernorm"}


class Double:
    """torch, in which float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def their_name(name):
    layer, _, end = name.rpartition(".")
    return f"{NAMES.get(layer, layer)}.{end}"


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize(("q_rank", "bias", "absorb"), [(None, False, False), (8, False, True), (8, True, False)])
def test_it_is_deepseeks(monkeypatch, side, q_rank, bias, absorb):
    monkeypatch.setattr(deepseek, "torch", Double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = transformers.DeepseekV2Config(
        hidden_size=D, num_attention_heads=H, kv_lora_rank=C, q_lora_rank=q_rank, qk_nope_head_dim=E, qk_rope_head_dim=R, v_head_dim=W,
        attention_bias=bias, rope_parameters=dict(rope_type="default", rope_theta=100.0), attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = deepseek.DeepseekV2Attention(config, layer_idx=0).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    x, dy = np.random.default_rng(0).standard_normal((2, 2, T, D))
    leaf = torch.tensor(x, requires_grad=True)
    angles = deepseek.DeepseekV2RotaryEmbedding(config)(leaf, torch.arange(T)[None])
    hidden = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)
    want, _ = theirs(leaf, attention_mask=hidden, position_embeddings=angles)
    want.backward(torch.tensor(dy))

    sizes = dict(kv_rank=C, head_width=E, rope_width=R, value_width=W, q_rank=q_rank, bias=bias, interleaved=True, absorb=absorb)
    cos, sin = rotary_table(np.arange(T), frequencies=rotary_frequencies(R, base=100.0), dtype=np.float64)
    if side == "numpy":
        ours = MultiHeadLatentAttention(D, H, **sizes, dtype=np.float64)
        ours.load_state_dict({name: theirs.get_parameter(their_name(name)).detach().numpy() for name in ours.state_dict()})
        y, backward = ours.forward(x, rotary=(cos, sin), causal=True)
        dx, grads = backward(dy)
        grads = flatten(grads)
    else:
        ours = TorchMultiHeadLatentAttention(D, H, **sizes, dtype=torch.float64)
        ours.load_state_dict({name: theirs.get_parameter(their_name(name)) for name in ours.state_dict()}, strict=True)
        own_leaf = torch.tensor(x, requires_grad=True)
        out = ours(own_leaf, rotary=(torch.tensor(cos), torch.tensor(sin)), causal=True)
        out.backward(torch.tensor(dy))
        y, dx, grads = out.detach().numpy(), own_leaf.grad, {name: p.grad for name, p in ours.named_parameters()}

    assert len(grads) == len(list(theirs.parameters()))
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(dx, leaf.grad, rtol=0, atol=1e-9)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, theirs.get_parameter(their_name(name)).grad, rtol=0, atol=1e-9, err_msg=name)
