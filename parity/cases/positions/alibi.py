"""What linear biases are fed: any number of heads, queries beside the last keys; attention with them is held to its definition."""

import numpy as np

from parity.cases import case, flag, integer, left_out, one_of, size


@case("positions.alibi_slopes", gradient=False, refuses=[dict(heads=0), dict(heads=2.0), dict(heads=True)])
def alibi_slopes(draw):
    return dict(heads=draw(one_of(integer(1, 9), integer(1, 200))))


def attention_falls_with_distance(side, heads, queries, keys, symmetric=False):
    """In this side's dtype the bias is −slope · distance, and attention is the same if slope · key is added under a causal mask."""
    bias = side.get("positions.alibi_bias")(heads, queries=queries, keys=keys, symmetric=symmetric, dtype=side.dtype)
    slopes = side.get("positions.alibi_slopes")(heads, dtype=side.dtype)
    yield "dtypes", (side.numpy(bias).dtype, side.numpy(slopes).dtype) == (np.float64, np.float64), True
    distance = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    seen = np.ones((queries, keys), bool) if symmetric else distance >= 0
    got = side.numpy(bias)
    yield "bias", np.where(seen, got, 0), -side.numpy(slopes)[:, None, None] * np.where(seen, np.abs(distance), 0)
    yield "hidden", np.isneginf(got), np.broadcast_to(~seen, got.shape)
    if not symmetric:
        rng = np.random.default_rng(heads)
        query, key, value = (side.array(rng.standard_normal((heads, n, 4))) for n in (queries, keys, keys))
        attention = side.get("attention.scaled_dot_product")
        results = (
            attention(query, key, value, bias),
            attention(query, key, value, slopes[:, None, None] * side.array(np.arange(keys, dtype=np.float64)), causal=True),
        )
        yield "attention", *(y[0] if side.name == "numpy" else y for y in results)


@case(
    "positions.alibi_bias",
    gradient=False,
    also=[attention_falls_with_distance],
    refuses=[
        dict(heads=0, queries=2, keys=3),
        dict(heads=2, queries=-1, keys=3),
        dict(heads=2, queries=2, keys=3.0),
    ],
    bench=dict(heads=12, queries=1024, keys=1024),
)
def alibi_bias(draw):
    return dict(heads=draw(integer(1, 9)), queries=draw(size(0, 9)), keys=draw(size(0, 9)), symmetric=draw(left_out(flag())))
