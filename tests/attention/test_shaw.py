"""Shaw's attention against transformers' Wav2Vec2-BERT, which has the keys' half of it, and against the paper's equations."""

import numpy as np
import pytest
import torch

from numpy_impl.attention.shaw import shaw_attention

H, E, K = 2, 4, 3


def test_the_keys_half_is_that_of_wav2vec2_bert():
    module = pytest.importorskip("transformers.models.wav2vec2_bert.modeling_wav2vec2_bert")
    config = pytest.importorskip("transformers").Wav2Vec2BertConfig(
        hidden_size=H * E, num_attention_heads=H, position_embeddings_type="relative_key",
        left_max_position_embeddings=K, right_max_position_embeddings=K, attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = module.Wav2Vec2BertSelfAttention(config).double().eval()
    theirs.linear_out = torch.nn.Identity()
    x, dy = torch.randn(2, 9, H * E, dtype=torch.float64), torch.randn(2, 9, H * E, dtype=torch.float64)
    want, _ = theirs(x)
    want.backward(dy)

    def heads(y):
        return y.detach().unflatten(-1, (H, E)).transpose(1, 2).numpy()

    query, key, value = (heads(linear(x)) for linear in (theirs.linear_q, theirs.linear_k, theirs.linear_v))
    table = theirs.distance_embedding.weight
    y, backward = shaw_attention(query, key, value, table.detach().numpy(), max_distance=K)
    np.testing.assert_allclose(y, heads(want), rtol=0, atol=1e-12)
    np.testing.assert_allclose(backward(heads(dy))[3], table.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "s"), [(7, 7), (3, 9), (130, 130), (300, 20)])
def test_it_is_what_the_equations_say(t, s, causal):
    # Equations 3 to 5, with one vector for every pair of tokens, of which the implementation makes none.
    rng = np.random.default_rng(1)
    shapes = (2, t, E), (2, s, E), (2, s, 5), (2 * K + 1, E), (2 * K + 1, 5)
    arrays, dy = [rng.standard_normal(shape) for shape in shapes], rng.standard_normal((2, t, 5))
    query, key, value, a, b = leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    after = torch.arange(s) - torch.arange(s - t, s)[:, None]
    ids = after.clamp(-K, K) + K
    scores = torch.einsum("bte,btse->bts", query, key[:, None] + a[ids]) / E ** 0.5
    if causal:
        scores = scores.masked_fill(after > 0, -torch.inf)
    p = scores.softmax(-1).nan_to_num(0)                                # queries that stand before every key see none
    want = torch.einsum("bts,btsw->btw", p, value[:, None] + b[ids])
    y, backward = shaw_attention(*arrays, max_distance=K, causal=causal)
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-12)
    if not (causal and t > s):                                          # there the gradient of the definition is NaN
        for got, grad in zip(backward(dy), torch.autograd.grad(want, leaves, torch.tensor(dy)), strict=True):
            np.testing.assert_allclose(got, grad, rtol=0, atol=1e-11)
