"""What sink_attention is fed: all that grouped-query attention is, and sinks; where they attract nothing, it equals plain attention."""

import numpy as np

from parity.cases import array, case, integer
from parity.cases.attention._plain import last_queries
from parity.cases.attention.grouped_query import _drawn, _refused
from parity.values import key_rng


def sinks_at_minus_infinity_are_plain_attention(side, query, key, value, sinks, bias=None, **options):
    """Without sinks, and with every head of keys and values written down as often as it is used, it is scaled_dot_product."""
    times, none = query.shape[-3] // key.shape[-3], side.array(np.full(tuple(sinks.shape), -np.inf))
    repeated = [x.repeat(times, -3) if side.name == "numpy" else x.repeat_interleave(times, -3) for x in (key, value)]
    y = side.get("attention.sink_attention")(query, key, value, none, bias, **options)
    want = side.get("attention.scaled_dot_product")(query, *repeated, bias, **options)
    if side.name == "numpy":
        (y, backward), (want, plain_backward) = y, want
        dy = key_rng("dy", y.shape).standard_normal(y.shape)
        dquery, dkey, dvalue, dsinks, dbias = backward(dy)
        dquery_want, dkey_want, dvalue_want, dbias_want = plain_backward(dy)
        yield "dquery", dquery, dquery_want
        for label, got, every in (("dkey", dkey, dkey_want), ("dvalue", dvalue, dvalue_want)):
            yield label, got, every.reshape(*got.shape[:-2], times, *got.shape[-2:]).sum(-3)
        yield "dsinks", dsinks, np.zeros_like(dsinks)
        if bias is not None:
            yield "dbias", dbias, dbias_want
    yield "y", y, want


@case(
    "attention.sink_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 2, 256, 64), value=array(4, 2, 256, 64), sinks=array(8), causal=True),
    refuses=[
        *(bad | dict(sinks=array(4)) for bad in _refused(2)),
        dict(query=array(4, 3, 5), key=array(6, 5), value=array(2, 6, 2), sinks=array(4)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(6, 2), sinks=array(4)),
        dict(query=array(4, 3, 5), key=array(3, 6, 5), value=array(3, 6, 2), sinks=array(4)),
        dict(query=array(4, 3, 5), key=array(0, 6, 5), value=array(0, 6, 2), sinks=array(4)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(2, 6, 2), sinks=array(2)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(2, 6, 2), sinks=array(1)),
        dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(2, 6, 2), sinks=None),
    ],
    also=[sinks_at_minus_infinity_are_plain_attention, last_queries("attention.sink_attention")],
)
def sink_attention(draw):
    inputs = _drawn(draw, draw(integer(1, 3)))
    return inputs | dict(sinks=draw(array(inputs["query"].shape[-3])))
