"""What top_k_attention is fed: fewer keys to keep than there are, as many, and more; ties; it equals plain attention under a mask."""

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries
from parity.cases.attention.scaled_dot_product import broadcast
from parity.values import key_rng


def keeping_all_is_plain_attention(side, query, key, value, bias=None, *, k, **options):
    """With k ≥ S it is scaled_dot_product."""
    s = key.shape[-2]
    for many in (max(s, 1), s + 3):
        got = side.get("attention.top_k_attention")(query, key, value, bias, k=many, **options)
        yield from _equal(side, got, side.get("attention.scaled_dot_product")(query, key, value, bias, **options))


def keeping_some_is_plain_attention_under_a_mask(side, query, key, value, bias=None, *, k, dropout=0.0, noise=None, **options):
    """The mask: the first k keys when those with a weight are sorted by it, stably. Also where many weights are equal."""
    drops = dict(dropout=dropout, noise=noise)
    ties = side.array(key_rng("ties", key.shape).integers(0, 3, key.shape[-2]).astype(float))
    for q, b in ((query, bias), (0 * query, ties)):
        weights = side.get("attention.attention_weights")(q, key, b, **options)
        weights = side.numpy(weights[0] if side.name == "numpy" else weights)
        kept = np.zeros(weights.shape, dtype=bool)
        np.put_along_axis(kept, np.argsort(-weights, -1, kind="stable")[..., :k], True, -1)
        kept = side.array(kept & (weights > 0))
        got = side.get("attention.top_k_attention")(q, key, value, b, k=k, **options, **drops)
        yield from _equal(side, got, side.get("attention.scaled_dot_product")(q, key, value, b, **options | {"mask": kept}, **drops))


def _equal(side, got, want):
    if side.name == "numpy":
        (got, backward), (want, plain_backward) = got, want
        dy = key_rng("dy", got.shape).standard_normal(got.shape)
        for name, grad, grad_want in zip(("dquery", "dkey", "dvalue", "dbias"), backward(dy), plain_backward(dy), strict=True):
            if grad_want is not None:
                yield name, grad, grad_want
    yield "y", got, want


@case(
    "attention.top_k_attention",
    bench=dict(query=array(8, 4, 256, 64), key=array(8, 4, 256, 64), value=array(8, 4, 256, 64), k=16, causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4), k=1),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4), k=1),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(4), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), k=0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), k=2.0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), bias=array(3, 4), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=mask(2, 3, 3), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=array(3, 3), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), scale=float("nan"), k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), scale=2e30, k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), soft_cap=0.0, k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=1.5, k=1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=-0.1, k=1),
    ],
    also=[keeping_all_is_plain_attention, keeping_some_is_plain_attention_under_a_mask, last_queries("attention.top_k_attention")],
    equivalent={
        "k < s -> k <= s": "the best S of S keys are all that have a weight",
        "np.count_nonzero(kept_rows[part], 1) > k -> np.count_nonzero(kept_rows[part], 1) >= k":
            "rows in which nothing is to be broken lose nothing when it is",
    },
)
def top_k_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    if not draw.edges and draw(integer(0, 4)) == 0:  # several blocks of rows
        lead, t, s = (), 130, 300
    drops = draw(one_of("a share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        bias=draw(one_of(left_out(None), array(*broadcast(draw, *lead, t, s)))),
        k=draw(integer(1, 3)),
        mask=draw(one_of(left_out(None), mask(*broadcast(draw, *lead, t, s)))),
        causal=draw(left_out(flag())),
        scale=draw(left_out(maybe(number(-1, 2)))),
        # A cap far below the scores would make ties of them that rounding breaks, differently on either side.
        soft_cap=draw(one_of(left_out(None), 2.0, 30.0)),
        dropout=draw(left_out(left_out(0.0))) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )
