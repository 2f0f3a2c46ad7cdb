"""What sliding_window_attention is fed: windows of every reach, unequal lengths, several strips. It is plain attention with a mask."""

import functools

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, maybe, number, one_of, size
from parity.cases.attention._plain import both, results


def is_plain_attention_with_the_window_as_mask(side, query, key, value, *, window, causal=False, **options):
    """scaled_dot_product with the equivalent boolean mask, outputs and gradients."""
    t, s = query.shape[-2], key.shape[-2]
    left, right = (10**6 if reach is None else reach for reach in window)
    distance = np.arange(s) - np.arange(s - t, s)[:, None]
    mask = side.array((distance >= -left) & (distance <= (0 if causal else right)))
    arrays = dict(query=query, key=key, value=value)
    windowed = functools.partial(side.get("attention.sliding_window_attention"), window=window, causal=causal, **options)
    plain = functools.partial(side.get("attention.scaled_dot_product"), mask=mask, **options)
    yield from both(results(side, windowed, **arrays), results(side, lambda q, k, v: plain(q, k, v), **arrays))


_PIECES = "how many heads are worked on together is a matter of speed"
_OUTSIDE = "one more key is computed, and hidden"
_X = dict(query=array(3, 4), key=array(3, 4), value=array(3, 4))


@case(
    "attention.sliding_window_attention",
    bench=dict(query=array(4, 4, 1024, 64), key=array(4, 4, 1024, 64), value=array(4, 4, 1024, 64), window=(128, 0)),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4), window=(1, 1)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4), window=(1, 1)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5), window=(1, 1)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4), window=(1, 1)),
        _X | dict(window=(-1, 0)),
        _X | dict(window=(1, -1)),
        _X | dict(window=(1, 2, 3)),
        _X | dict(window=3),
        _X | dict(window=(1.0, 0)),
        _X | dict(window=(True, 0)),
        _X | dict(window=(1, 1), scale=float("nan")),
        _X | dict(window=(1, 1), scale=2e30),
        _X | dict(window=(1, 1), soft_cap=0.0),
    ],
    also=[is_plain_attention_with_the_window_as_mask],
)
def sliding_window_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 7)), draw(size(0, 7))
    reach = one_of(0, 1, 2, 4, None)
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips, some of which see nothing or everything
        lead = draw(one_of((), (2,)))
        t, s = draw(one_of((130, 130), (70, 200), (200, 70), (65, 1)))
        reach = one_of(0, 3, 40, 90, None)
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        window=(draw(reach), draw(reach)) if draw(flag()) else (draw(integer(0, 3)), draw(integer(0, 3))),
        causal=draw(left_out(flag())),
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
    )
