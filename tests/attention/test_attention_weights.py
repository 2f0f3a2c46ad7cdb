"""What the laws cannot say of attention_weights: the weights that PyTorch's own layer returns."""

import numpy as np
import torch

from numpy_impl.attention.attention_weights import attention_weights


def test_they_are_those_that_multihead_attention_returns():
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True, dtype=torch.float64)
    x, causal = torch.randn(3, 5, 8, dtype=torch.float64), torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    _, want = layer(x, x, x, attn_mask=causal, average_attn_weights=False)                       # (B, H, T, S)
    query, key, _ = (x @ layer.in_proj_weight.T).detach().reshape(3, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).numpy()
    got, _ = attention_weights(query, key, causal=True)
    np.testing.assert_allclose(got, want.detach(), rtol=0, atol=1e-15)
