"""What Shaw's attention is fed: tables shorter and longer than the texts, with and without one for values, several strips, dropout."""

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries
from parity.cases.attention.scaled_dot_product import broadcast


def with_tables_of_zeros_it_is_plain_attention(side, query, key, value, key_table, value_table=None, *, max_distance, **options):
    """With a = 0 and b = 0 it is scaled_dot_product, and so are its gradients."""
    ours, plain = side.get("attention.shaw_attention"), side.get("attention.scaled_dot_product")
    zeros = None if value_table is None else 0 * value_table
    got = ours(query, key, value, 0 * key_table, zeros, max_distance=max_distance, **options)
    want = plain(query, key, value, **options)
    if side.name == "numpy":
        (got, backward), (want, plain_backward) = got, want
        dy = got - 0.5
        yield from zip(("dquery", "dkey", "dvalue"), backward(dy)[:3], plain_backward(dy)[:3], strict=True)
    yield "y", got, want


def every_key_has_its_own_vectors(side, query, key, value, key_table, value_table=None, *, max_distance, **options):
    """It is attention to one query at a time, whose keys are key_s + a_i and whose values are value_s + b_i."""
    *lead, t, _ = query.shape
    s = key.shape[-2]
    if t * s > 100 or options.get("noise") is not None:
        return
    y = side.get("attention.shaw_attention")(query, key, value, key_table, value_table, max_distance=max_distance, **options)
    attention = side.get("attention.scaled_dot_product")
    after = np.arange(s) - np.arange(s - t, s)[:, None]
    seen = np.broadcast_to((after <= 0) | (not options.get("causal", False)), (*lead, t, s))
    if options.get("mask") is not None:
        seen = seen & side.numpy(options["mask"])
    seen = side.array(seen.copy())
    for i in range(t):
        rows = side.array(max_distance + np.clip(after[i], -max_distance, max_distance))
        values = value if value_table is None else value + value_table[rows]
        one = slice(i, i + 1)
        want = attention(query[..., one, :], key + key_table[rows], values, mask=seen[..., one, :], scale=options.get("scale"))
        got, want = (y[0], want[0]) if side.name == "numpy" else (y, want)
        yield f"query {i}", got[..., one, :], want


_GOOD = dict(query=array(2, 3, 4), key=array(2, 5, 4), value=array(2, 5, 6), key_table=array(5, 4), value_table=array(5, 6), max_distance=2)


@case(
    "attention.shaw_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 8, 256, 64), value=array(4, 8, 256, 64), key_table=array(33, 64),
               value_table=array(33, 64), max_distance=16, causal=True),
    refuses=[_GOOD | bad for bad in (
        dict(query=array(4)),
        dict(key=array(5)),
        dict(value=array(6)),
        dict(key=array(5, 4)),
        dict(key=array(2, 5, 3)),
        dict(value=array(2, 4, 6)),
        dict(max_distance=3),
        dict(max_distance=-1),
        dict(max_distance=2.0),
        dict(key_table=array(2, 5, 4)),
        dict(key_table=array(5, 3)),
        dict(value_table=array(5, 4)),
        dict(value_table=array(4, 6)),
        dict(mask=mask(2, 3, 4)),
        dict(mask=array(2, 3, 5)),
        dict(scale=float("nan")),
        dict(scale=2e30),
        dict(dropout=1.5),
        dict(dropout=-0.1),
    )],
    also=[with_tables_of_zeros_it_is_plain_attention, every_key_has_its_own_vectors, last_queries("attention.shaw_attention")],
    equivalent={
        "random_bits(noise, shape) >= round(dropout * 2 ** 32) -> random_bits(noise, shape) > round(dropout * 2 ** 32)":
            "differs once in 2^32 words",
        "0.0 if dropout == 1 else 1 / (1 - dropout) -> 1.0 if dropout == 1 else 1 / (1 - dropout)":
            "where everything is dropped, nothing is left to grow",
    },
)
def shaw_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(one_of(size(0, 5), 1))
    t, s, k = draw(size(0, 6)), draw(size(0, 6)), draw(integer(0, 4))
    causal = draw(left_out(flag()))
    if not draw.ordinary and not draw.edges and draw(flag()):                      # several strips, the last one ragged
        lead, causal = (), True
        t, s = draw(one_of((130, 130), (70, 200), (140, 66)))
        k = draw(one_of(1, 20, 100))
    drops = draw(one_of("a share", "a share", "no share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        key_table=draw(array(2 * k + 1, e)), value_table=draw(one_of(left_out(None), array(2 * k + 1, w), array(2 * k + 1, w))),
        max_distance=k,
        mask=draw(one_of(left_out(None), mask(*lead, t, s), mask(*broadcast(draw, *lead, t, s), p=0.9))),
        causal=causal,
        scale=draw(left_out(maybe(number(-1, 2)))),
        dropout=draw(left_out(0.0)) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )
