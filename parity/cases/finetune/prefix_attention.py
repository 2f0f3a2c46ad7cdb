"""What attention with a prefix is fed: all that grouped-query attention is, prefixes of no entry to four, sinks or none."""

from parity.cases import array, case, integer, left_out, mask, maybe
from parity.cases.attention.grouped_query import _drawn


def is_attention_over_more_keys(side, query, key, value, prefix_key, prefix_value, bias=None, sinks=None, **options):
    """Without a prefix it is grouped_query_attention, or sink_attention where there are sinks."""
    if sinks is None:
        want = side.get("attention.grouped_query_attention")(query, key, value, bias, **options)
    else:
        want = side.get("attention.sink_attention")(query, key, value, sinks, bias, **options)
    none = prefix_key[:, :0], prefix_value[:, :0]
    got = side.get("finetune.prefix_attention")(query, key, value, *none, bias, sinks, **options)
    yield "without a prefix", got[0] if side.name == "numpy" else got, want[0] if side.name == "numpy" else want


_GOOD = dict(query=array(4, 3, 5), key=array(2, 6, 5), value=array(2, 6, 3), prefix_key=array(2, 1, 5), prefix_value=array(2, 1, 3))


@case(
    "finetune.prefix_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 2, 256, 64), value=array(4, 2, 256, 64), prefix_key=array(2, 16, 64),
               prefix_value=array(2, 16, 64), causal=True),
    also=[is_attention_over_more_keys],
    refuses=[_GOOD | bad for bad in (
        dict(query=array(3, 5)), dict(key=array(6, 5)), dict(value=array(6, 3)), dict(key=array(2, 6, 4)),
        dict(value=array(2, 5, 3)), dict(prefix_key=array(1, 2, 1, 5)), dict(prefix_value=array(1, 3)), dict(prefix_key=array(4, 1, 5)),
        dict(prefix_key=array(2, 1, 4)),
        dict(prefix_value=array(2, 2, 3)), dict(prefix_value=array(2, 1, 2)), dict(bias=array(3, 7)), dict(mask=mask(4, 3, 7)),
        dict(mask=array(3, 6)), dict(sinks=array(2)), dict(scale=float("nan")), dict(soft_cap=0.0), dict(dropout=1.5),
        dict(query=array(3, 3, 5)),
    )],
)
def prefix_attention(draw):
    inputs = _drawn(draw, draw(integer(1, 3)))
    (*_, k, _, e), w, n = inputs["key"].shape, inputs["value"].shape[-1], draw(integer(0, 4))
    return inputs | dict(prefix_key=draw(array(k, n, e)), prefix_value=draw(array(k, n, w)),
                         sinks=draw(left_out(maybe(array(inputs["query"].shape[-3])))))
