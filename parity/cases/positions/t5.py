"""What T5's buckets are fed: near and far distances, other numbers of buckets, several strips of queries."""

import numpy as np

from parity.cases import array, case, flag, integer, left_out, one_of, size

_BUCKETS = {
    "steps + 1e-09 -> steps + 1.001e-09": "no logarithm stands so close to a whole number but for rounding",
    "steps + 1e-09 -> steps + 1.000001e-09": "no logarithm stands so close to a whole number but for rounding",
    "distance < exact -> distance <= exact": "for the distance e both formulas give bucket e",
}


def _lengths(draw):
    if not draw.ordinary and not draw.edges and draw(flag()):                      # several strips, the last one ragged
        queries, keys = draw(one_of((130, 130), (70, 200), (140, 66)))
    else:
        queries, keys = draw(size(0, 20)), draw(size(0, 20))
    return queries, keys


def _far(draw, buckets, bidirectional):
    """A max_distance beyond the exact buckets."""
    return (buckets // 4 if bidirectional else buckets // 2) + draw(integer(1, 40))


@case(
    "positions.t5_buckets",
    gradient=False,
    refuses=[
        dict(queries=-1, keys=3),
        dict(queries=2, keys=3.0),
        dict(queries=2, keys=3, buckets=3),
        dict(queries=2, keys=3, buckets=1, bidirectional=False),
        dict(queries=2, keys=3, buckets=True, bidirectional=False),
        dict(queries=2, keys=3, max_distance=8),
        dict(queries=2, keys=3, max_distance=16, bidirectional=False),
        dict(queries=2, keys=3, max_distance=64.0),
    ],
    bench=dict(queries=1024, keys=1024),
    equivalent=_BUCKETS,
)
def t5_buckets(draw):
    queries, keys = _lengths(draw)
    bidirectional = draw(flag())
    options = dict(queries=queries, keys=keys, bidirectional=draw(left_out(True)) if bidirectional else False)
    if draw(flag()):
        buckets = draw(integer(4 if bidirectional else 2, 24))
        options |= dict(buckets=buckets, max_distance=_far(draw, buckets, bidirectional))
    return options


def a_table_of_numbers_shows_the_buckets(side, table, queries, keys, bidirectional=True, max_distance=128):
    """Where table[b] is b, the bias is the buckets."""
    buckets, heads = table.shape
    numbers = side.array(np.repeat(np.arange(float(buckets))[:, None], heads, 1))
    options = dict(queries=queries, keys=keys, bidirectional=bidirectional, max_distance=max_distance)
    bias = side.get("positions.t5_bias")(numbers, **options)
    want = side.numpy(side.get("positions.t5_buckets")(buckets=buckets, **options))
    yield "bias", bias[0] if side.name == "numpy" else bias, np.broadcast_to(want, (heads, queries, keys)).astype(float)


@case(
    "positions.t5_bias",
    also=[a_table_of_numbers_shows_the_buckets],
    refuses=[
        dict(table=array(32), queries=2, keys=3),
        dict(table=array(3, 2), queries=2, keys=3),
        dict(table=array(1, 2), queries=2, keys=3, bidirectional=False),
        dict(table=array(32, 2), queries=2.0, keys=3),
        dict(table=array(32, 2), queries=2, keys=-3),
        dict(table=array(32, 2), queries=2, keys=3, max_distance=8),
    ],
    bench=dict(table=array(32, 12), queries=1024, keys=1024),
    equivalent=_BUCKETS | {
        "_STRIP = 64 -> _STRIP = 65": "how many queries are summed at a time is a matter of speed",
    },
)
def t5_bias(draw):
    queries, keys = _lengths(draw)
    bidirectional = draw(flag())
    buckets = draw(integer(4 if bidirectional else 2, 12))
    return dict(
        table=draw(array(buckets, draw(size(0, 3)))), queries=queries, keys=keys,
        bidirectional=draw(left_out(True)) if bidirectional else False,
        max_distance=draw(one_of(left_out(128), _far(draw, buckets, bidirectional))),
    )
