"""What grouped-query and multi-query attention are fed: groups of every size, and all that scaled_dot_product is; they equal it."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries
from parity.cases.attention.scaled_dot_product import broadcast
from parity.values import key_rng


def repeated_keys_are_plain_attention(side, query, key, value, bias=None, **options):
    """With every head of keys and values written down as often as it is used, it is scaled_dot_product; where K = H, as it is."""
    yield from _equals_plain(side, "attention.grouped_query_attention", query, key, value, bias, options)


def one_head_for_all_is_plain_attention(side, query, key, value, bias=None, **options):
    """The same of multi_query_attention, whose keys and values have no axis of heads."""
    yield from _equals_plain(side, "attention.multi_query_attention", query, key, value, bias, options)


def _equals_plain(side, name, query, key, value, bias, options):
    ours, plain = side.get(name), side.get("attention.scaled_dot_product")
    *lead, h, t, _ = query.shape
    kv_heads = key.shape[-3] if name == "attention.grouped_query_attention" else 1
    repeated = [_repeat(side, x.reshape(*lead, kv_heads, *x.shape[-2:]), h // kv_heads) for x in (key, value)]
    y, want = ours(query, key, value, bias, **options), plain(query, *repeated, bias, **options)
    if side.name == "numpy":
        dy = key_rng("dy", query.shape).standard_normal((*lead, h, t, value.shape[-1]))
        (y, backward), (want, plain_backward) = y, want
        dquery, dkey, dvalue, dbias = backward(dy)
        dquery_want, dkey_want, dvalue_want, dbias_want = plain_backward(dy)
        yield "dquery", dquery, dquery_want
        for label, got, every in (("dkey", dkey, dkey_want), ("dvalue", dvalue, dvalue_want)):
            yield label, got, every.reshape(*lead, kv_heads, h // kv_heads, *every.shape[-2:]).sum(-3).reshape(got.shape)
        if bias is not None:
            yield "dbias", dbias, dbias_want
    yield "y", y, want


def _repeat(side, x, times):
    return x.repeat(times, -3) if side.name == "numpy" else x.repeat_interleave(times, -3)


def _drawn(draw, *kv_heads):
    """Both are fed this; `kv_heads` is the axis of K heads, or nothing."""
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s, h = draw(size(0, 6)), draw(size(0, 6)), draw(integer(1, 3)) * (kv_heads or (1,))[0]
    causal = draw(left_out(left_out(flag())))
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips
        lead, causal = (), True
        t, s = draw(one_of((130, 130), (70, 200), (140, 66)))
    drops = draw(one_of("a share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, h, t, e)), key=draw(array(*lead, *kv_heads, s, e)), value=draw(array(*lead, *kv_heads, s, w)),
        bias=draw(one_of(left_out(None), array(*broadcast(draw, *lead, h, t, s)))),
        mask=draw(one_of(left_out(None), mask(*broadcast(draw, *lead, h, t, s)))),
        causal=causal,
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
        dropout=draw(left_out(left_out(0.0))) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )


def _refused(*kv_heads):
    """What both refuse; `kv_heads` is the axis of K = 2 heads, or nothing."""
    good = dict(query=array(4, 3, 5), key=array(*kv_heads, 6, 5), value=array(*kv_heads, 6, 2))
    return [good | bad for bad in (
        dict(query=array(3, 5)),
        dict(query=array(0, 3, 5)),
        dict(query=array(2, 4, 3, 5)),
        dict(key=array(5)),
        dict(value=array(2)),
        dict(key=array(*kv_heads, 6, 4)),
        dict(value=array(*kv_heads, 5, 2)),
        dict(bias=array(4, 3, 5)),
        dict(mask=mask(2, 3, 6)),
        dict(mask=array(4, 3, 6)),
        dict(scale=float("nan")),
        dict(scale=2e30),
        dict(soft_cap=0.0),
        dict(dropout=1.5),
        dict(dropout=-0.1),
    )]


@case(
    "attention.grouped_query_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 2, 256, 64), value=array(4, 2, 256, 64), causal=True),
    refuses=[
        *_refused(2),
        dict(query=array(4, 3, 5), key=array(6, 5), value=array(2, 6, 2)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(6, 2)),
        dict(query=array(4, 3, 5), key=array(3, 6, 5), value=array(3, 6, 2)),
        dict(query=array(4, 3, 5), key=array(0, 6, 5), value=array(0, 6, 2)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(4, 6, 2)),
    ],
    also=[repeated_keys_are_plain_attention, last_queries("attention.grouped_query_attention")],
)
def grouped_query_attention(draw):
    return _drawn(draw, draw(integer(1, 3)))


@case(
    "attention.multi_query_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 256, 64), value=array(4, 256, 64), causal=True),
    refuses=_refused(),
    also=[one_head_for_all_is_plain_attention, last_queries("attention.multi_query_attention")],
)
def multi_query_attention(draw):
    return _drawn(draw)
