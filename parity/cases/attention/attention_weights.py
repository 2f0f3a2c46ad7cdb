"""What attention_weights is fed: what scaled_dot_product is, without values; multiplied by values, it gives what that gives."""

import numpy as np

from parity.cases import array, case, dims, left_out, mask, maybe, number, one_of, size
from parity.cases.attention.scaled_dot_product import broadcast
from parity.values import key_rng


def weights_times_values_are_attention(side, query, key, bias=None, **options):
    """P · value is scaled_dot_product, and so are its gradients."""
    weights, attention = side.get("attention.attention_weights"), side.get("attention.scaled_dot_product")
    rng = key_rng("values", query.shape, key.shape)
    *lead, t, _ = query.shape
    value, dy = (side.array(rng.standard_normal((*lead, n, 3))) for n in (key.shape[-2], t))
    p, y = weights(query, key, bias, **options), attention(query, key, value, bias, **options)
    if side.name == "numpy":
        (p, p_backward), (y, y_backward) = p, y
        dquery, dkey, _, dbias = y_backward(dy)
        got_grads = p_backward(dy @ value.swapaxes(-1, -2))
        for name, got, want in zip(("dquery", "dkey", "dbias"), got_grads, (dquery, dkey, dbias), strict=True):
            if want is not None:
                yield name, got, want
    yield "y", p @ value, y


def rows_sum_to_one(side, query, key, bias=None, **options):
    """The weights of a query that sees something sum to 1, those of one that sees nothing to 0."""
    p = side.get("attention.attention_weights")(query, key, bias, **options)
    total = side.numpy(p[0] if side.name == "numpy" else p).sum(-1)
    yield "sums of rows", total, np.where(total > 0.5, 1.0, 0.0)


@case(
    "attention.attention_weights",
    bench=dict(query=array(8, 4, 256, 64), key=array(8, 4, 256, 64), causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4)),
        dict(query=array(3, 4), key=array(3)),
        dict(query=array(2, 3, 4), key=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), bias=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), mask=mask(2, 3, 3)),
        dict(query=array(3, 4), key=array(3, 4), mask=array(3, 3)),
        dict(query=array(3, 4), key=array(3, 4), scale=float("inf")),
        dict(query=array(3, 4), key=array(3, 4), scale=2e30),
        dict(query=array(3, 4), key=array(3, 4), soft_cap=0.0),
    ],
    also=[weights_times_values_are_attention, rows_sum_to_one],
)
def attention_weights(draw):
    lead = draw(dims(0, 2))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)),
        bias=draw(one_of(left_out(None), array(*broadcast(draw, *lead, t, s)))),
        mask=draw(one_of(left_out(None), mask(*lead, t, s, p=0.8), mask(*broadcast(draw, *lead, t, s), p=0.9))),
        causal=draw(one_of(left_out(False), left_out(False), True)),
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
    )
