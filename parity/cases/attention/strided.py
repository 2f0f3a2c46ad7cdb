"""What strided_attention is fed: strides and bands of every width, unequal lengths, several strips. It is plain attention with a mask."""

import functools

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, maybe, number, one_of, size
from parity.cases.attention._plain import both, last_queries, results


def is_plain_attention_with_the_pattern_as_mask(side, query, key, value, *, stride, local=0, reach=None, causal=False, **options):
    """scaled_dot_product with the equivalent boolean mask, outputs and gradients."""
    t, s = query.shape[-2], key.shape[-2]
    steps = np.arange(s) - np.arange(s - t, s)[:, None]
    mask = (abs(steps) <= local) | ((steps % stride == 0) & (abs(steps) <= (10**6 if reach is None else reach)))
    if causal:
        mask &= steps <= 0
    arrays, mask = dict(query=query, key=key, value=value), side.array(mask)
    pattern = dict(stride=stride, local=local, reach=reach, causal=causal)
    strided = functools.partial(side.get("attention.strided_attention"), **pattern, **options)
    plain = functools.partial(side.get("attention.scaled_dot_product"), mask=mask, **options)
    yield from both(results(side, strided, **arrays), results(side, lambda q, k, v: plain(q, k, v), **arrays))


def reads_no_key_beyond_a_strip_and_a_class(side, query, key, value, *, stride, local=0, reach=None, causal=False, **options):
    """What the first query's strip of 64 neighbours and its strip of 64 of its class cannot see may be anything: that saves the cost."""
    t, s = query.shape[-2], key.shape[-2]
    if not t:
        return
    keys, unread = np.arange(s), np.ones(s, dtype=bool)
    for step, furthest in ((1, local), (stride, 10**6 if reach is None else reach)):
        places = np.arange(s - t, s, step)[:64]
        last = places[-1] + (0 if causal else furthest)
        unread &= ((keys - places[0]) % step != 0) | (keys < places[0] - furthest) | (keys > last)
    pattern = dict(stride=stride, local=local, reach=reach, causal=causal)
    attention = functools.partial(side.get("attention.strided_attention"), **pattern, **options)
    spoilt = (side.array(np.where(unread[:, None], np.nan, side.numpy(x))) for x in (key, value))
    y, got = (y[0] if side.name == "numpy" else y for y in (attention(query, key, value), attention(query, *spoilt)))
    yield "the first query", got[..., 0, :], y[..., 0, :]


def further_than_all_is_no_limit(side, query, key, value, *, stride, local=0, reach=None, **options):
    """A reach beyond what 64 bits hold is as good as none, and so beyond the last key is every width of the band."""
    attention = functools.partial(side.get("attention.strided_attention"), query, key, value, **options)
    far = 2**70
    pairs = (dict(local=local, reach=far), dict(local=local)), (dict(local=far), dict(local=query.shape[-2] + key.shape[-2]))
    for got, want in pairs:
        got, want = (attention(stride=stride, **x) for x in (got, want))
        yield "y", *((got[0], want[0]) if side.name == "numpy" else (got, want))


_X = dict(query=array(3, 4), key=array(3, 4), value=array(3, 4))


@case(
    "attention.strided_attention",
    bench=dict(query=array(4, 4, 1024, 64), key=array(4, 4, 1024, 64), value=array(4, 4, 1024, 64), stride=32, local=32, causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4), stride=2),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4), stride=2),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5), stride=2),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4), stride=2),
        _X | dict(stride=0),
        _X | dict(stride=2.0),
        _X | dict(stride=2, local=-1),
        _X | dict(stride=2, reach=-1),
        _X | dict(stride=2, scale=float("nan")),
        _X | dict(stride=2, scale=2e30),
        _X | dict(stride=2, soft_cap=0.0),
    ],
    also=[is_plain_attention_with_the_pattern_as_mask, reads_no_key_beyond_a_strip_and_a_class, further_than_all_is_no_limit,
          last_queries("attention.strided_attention")],
)
def strided_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 7)), draw(size(0, 7))
    stride, local, reach = draw(integer(1, 4)), draw(left_out(integer(0, 3))), draw(left_out(maybe(integer(0, 6))))
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips, near or far
        lead, e = draw(one_of((), (2,))), draw(one_of(1, 1, 3))
        t, s = draw(one_of((130, 130), (70, 200), (200, 70), (140, 139)))
        stride, local, reach = draw(one_of(1, 2, 11, 300)), draw(one_of(0, 5, 40)), draw(left_out(one_of(9, 60, None)))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        stride=stride, local=local, reach=reach,
        causal=draw(left_out(flag())),
        scale=draw(left_out(None)) if e == 1 else draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
    )
