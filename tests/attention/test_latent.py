"""What the laws cannot say of latent_attention: DeepSeek-V3's own attention, and that no key is ever built."""

import tracemalloc

import numpy as np
import pytest
import torch

from numpy_impl.attention.latent import latent_attention
from numpy_impl.positions.rotary import rotary_frequencies, rotary_table


def test_it_is_what_deepseek_computes():
    # transformers takes the softmax in float32, whatever it is given.
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    torch.manual_seed(0)
    b, t, h, e, p, w, r = 2, 7, 3, 4, 2, 5, 6
    config = deepseek.DeepseekV3Config(
        hidden_size=8, num_attention_heads=h, num_key_value_heads=h, q_lora_rank=None, kv_lora_rank=r, qk_nope_head_dim=e,
        qk_rope_head_dim=p, v_head_dim=w, rope_interleave=False, attn_implementation="eager",
    )
    layer = deepseek.DeepseekV3Attention(config, 0).double()
    heads = []
    layer.o_proj.register_forward_pre_hook(lambda _, inputs: heads.append(inputs[0]))
    table = rotary_table(np.arange(t), frequencies=rotary_frequencies(p), dtype=np.float64)
    cos, sin = (torch.tensor(part).repeat(1, 2)[None] for part in table)
    hidden = torch.full((t, t), -torch.inf, dtype=torch.float64).triu(1)

    x = torch.randn(b, t, 8, dtype=torch.float64)
    layer(x, (cos, sin), hidden)
    want = heads[0].reshape(b, t, h, w).transpose(1, 2)
    dy = torch.randn_like(want)
    dq_proj, dkv_b_proj = torch.autograd.grad(want, [layer.q_proj.weight, layer.kv_b_proj.weight], dy)

    with torch.no_grad():
        query, query_rope = layer.q_proj(x).reshape(b, t, h, e + p).transpose(1, 2).split([e, p], -1)
        latent, key_rope = layer.kv_a_proj_with_mqa(x).split([r, p], -1)
        query_rope, key_rope = deepseek.apply_rotary_pos_emb(query_rope, key_rope[:, None], cos, sin)
        weight_k, weight_v = layer.kv_b_proj.weight.reshape(h, e + w, r).split([e, w], 1)
        arrays = query, layer.kv_a_layernorm(latent), weight_k, weight_v, query_rope, key_rope[:, 0]
    y, backward = latent_attention(*(a.detach().numpy() for a in arrays), causal=True)
    dquery, _, dweight_k, dweight_v, _, _ = backward(dy.numpy())
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([dweight_k, dweight_v], 1).reshape(-1, r), dkv_b_proj, rtol=0, atol=1e-6)
    dweight_q = np.einsum("bhte,btd->hed", dquery, x.numpy())
    np.testing.assert_allclose(dweight_q, dq_proj.reshape(h, e + p, 8)[:, :e], rtol=0, atol=1e-6)


def test_keys_and_values_of_the_heads_are_never_built():
    # One query over a long past, as in decoding: all that grows with the past is what multi-query attention needs of it, once.
    def peak(s, h):
        rng = np.random.default_rng(0)
        shapes = [(h, 1, 16), (s, 32), (h, 16, 32), (h, 16, 32)]
        arrays = [rng.standard_normal(shape) for shape in shapes]
        tracemalloc.start()
        latent_attention(*arrays)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    keys = 16 * 4000 * 16 * 8                                 # bytes of the keys of 16 heads over 4000 tokens
    assert peak(4000, 16) < keys / 2
