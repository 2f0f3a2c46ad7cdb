"""T5's buckets, bias and its gradient against transformers."""

import numpy as np
import pytest
import torch

from numpy_impl.positions.t5 import t5_bias, t5_buckets

# transformers takes its logarithm in float32, which in a few configurations that no model has (36 buckets up to 50 tokens, say) moves a
# boundary by one token. These have none.
CONFIGURATIONS = [(32, 128), (64, 128), (16, 128), (16, 64), (8, 20), (32, 500), (12, 50), (7, 30), (320, 800)]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), CONFIGURATIONS)
def test_buckets_are_those_of_transformers(buckets, max_distance, bidirectional):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    far = 3 * max_distance
    options = dict(bidirectional=bidirectional, max_distance=max_distance)
    want = t5.T5Attention._relative_position_bucket(torch.arange(-far, far + 1), num_buckets=buckets, **options).numpy()
    ours = t5_buckets(queries=far + 1, keys=far + 1, buckets=buckets, **options)
    assert np.array_equal(ours[-1], want[:far + 1])                    # the last query: every key is its own or before it
    assert np.array_equal(ours[0], want[far:])                         # the first: its own or after it


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (1, 40), (150, 150), (70, 300)])
def test_bias_and_gradient_are_those_of_transformers(queries, keys, decoder):
    transformers = pytest.importorskip("transformers")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = transformers.T5Config(d_model=12, d_kv=4, num_heads=3, is_decoder=decoder)
    attention = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double()
    weight = attention.relative_attention_bias.weight
    torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    want = attention.compute_bias(queries, keys, past_seen_tokens=keys - queries)[0]
    dbias = np.random.default_rng(1).standard_normal((3, queries, keys))
    want.backward(torch.tensor(dbias))
    bias, backward = t5_bias(weight.detach().numpy(), queries=queries, keys=keys, bidirectional=not decoder)
    assert np.array_equal(bias, want.detach())
    np.testing.assert_allclose(backward(dbias), weight.grad, rtol=0, atol=1e-10)


def test_a_bad_gradient_stays_in_its_bucket():
    _, backward = t5_bias(np.zeros((32, 1)), queries=3, keys=3)
    dbias = np.zeros((1, 3, 3))
    dbias[0, 2, 0] = np.nan                                            # a distance of 2, and so bucket 2
    assert np.flatnonzero(np.isnan(backward(dbias))).tolist() == [2]
