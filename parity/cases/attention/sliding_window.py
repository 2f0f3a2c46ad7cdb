"""What sliding_window_attention is fed: windows of every reach, unequal lengths, several strips. It is plain attention with a mask."""

import functools

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, maybe, noise, number, one_of, size
from parity.cases.attention._plain import both, last_queries, results


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


def reads_no_key_that_a_strip_cannot_see(side, query, key, value, *, window, causal=False, **options):
    """What the first strip of 64 queries cannot see may be anything: that is where the cost is saved."""
    strip, (t, s) = 64, (query.shape[-2], key.shape[-2])
    left, right = (10**6 if reach is None else reach for reach in window)
    places = np.arange(s - t, s)[:strip]
    if not places.size:
        return
    unseen = np.ones(s, dtype=bool)
    unseen[max(places[0] - left, 0):max(places[-1] + (0 if causal else right) + 1, 0)] = False
    attention = functools.partial(side.get("attention.sliding_window_attention"), window=window, causal=causal, **options)
    spoilt = (side.array(np.where(unseen[:, None], np.nan, side.numpy(x))) for x in (key, value))
    y, got = (y[0] if side.name == "numpy" else y for y in (attention(query, key, value), attention(query, *spoilt)))
    yield "the first strip", got[..., :strip, :], y[..., :strip, :]


_PIECES = "how many heads are worked on together is a matter of speed"
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
        _X | dict(window=(1, 1), dropout=1.5),
        _X | dict(window=(1, 1), dropout=-0.1),
    ],
    also=[is_plain_attention_with_the_window_as_mask, reads_no_key_that_a_strip_cannot_see,
          last_queries("attention.sliding_window_attention")],
    equivalent={
        "math.prod(lead[1:]) * hidden.size -> hidden.size": _PIECES,
        "math.prod(lead[1:]) * hidden.size -> math.prod(lead[1:])": _PIECES,
        "lead[1:] -> lead[2:]": _PIECES,
        "dropout > 0 -> dropout >= 0": "every word is at least 0: nothing is dropped, and the rest grows by 1",
        "0.0 if dropout == 1 else 1 / (1 - dropout) -> 1.0 if dropout == 1 else 1 / (1 - dropout)":
            "where everything is dropped, nothing is left to grow",
        "bits >= round(dropout * 2 ** 32) -> bits > round(dropout * 2 ** 32)": "differs once in 2^32 words",
    },
)
def sliding_window_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 7)), draw(size(0, 7))
    reach = one_of(0, 1, 2, 4, None)
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips, some of which see nothing or everything
        lead = draw(one_of((), (2,)))
        t, s = draw(one_of((130, 130), (70, 200), (200, 70)))
        reach = one_of(0, 3, 40, 90, None)
    drops = draw(one_of("a share", "a share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        window=(draw(reach), draw(reach)) if draw(flag()) else (draw(integer(0, 3)), draw(integer(0, 3))),
        causal=draw(left_out(flag())),
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
        dropout=draw(left_out(0.0)) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )
