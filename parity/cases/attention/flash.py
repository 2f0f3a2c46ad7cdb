"""What flash_attention is fed: tiles of every size, ragged ones too, windows, soft caps, slopes, dropout; it equals plain attention."""

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries


def sizes(draw):
    """(lead, T, S, E, W)."""
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    low = 0 if draw.edges else 2        # with one key, gradients are zero by structure: rounding over rounding
    return draw(dims(0, 2)), draw(size(0, 7)), draw(size(low, 7)), e, draw(size(0, 5))


def options(draw):
    """What becomes of the scores and the probabilities, and how the work is cut up."""
    drops = draw(one_of("a share", "no share", "no noise", "no noise"))
    causal = draw(left_out(flag()))
    left, right = draw(integer(1 if causal is True else 0, 3)), draw(integer(0, 3))
    return dict(
        causal=causal,
        window=draw(one_of(left_out((None, None)), (left, None), (None, right), (left, max(right, 1)), (max(left, 1), right))),
        soft_cap=draw(one_of(left_out(None), left_out(None), 0.03, 2.0, 30.0)),
        dropout=draw(left_out(left_out(0.0))) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
        tile=draw(one_of(left_out(None), 1, (2, 3), (3, 2), (1, 4), (4, 1), (4, 2))),
    )


def values(draw, lead, t, s, e, w, hostile=True):
    """Queries, keys, values and slopes.

    Scores beyond what exp can take come from long queries, long keys or steep slopes, not from hostile values: where one key takes all of
    P, the score gradients of plain attention vanish to the last bit, those of flash attention only to rounding, D being dy · y; and keys
    of 1000 would show it. There values are small.
    """
    scale = draw(left_out(left_out(maybe(number(-1, 2)))))
    long_query, long_key, steep, extreme = 1, 1, 0.5, not draw.edges and draw(flag())
    if extreme:
        long_query, long_key, scale, steep = draw(
            one_of((30, 1, 1.0, 0.5), (1, 30, 1.0, 0.5), (30, 30, 0.1, 0.5), (30, 30, -0.1, 0.5), (1, 1, 30.0, 0.5), (1, 1, 1.0, 400.0)))
    t = s + draw(integer(0, 3)) if steep > 1 else t     # the first queries then stand before all keys, and every score is low
    slopes = array(*lead[-1:], low=-0.3, high=steep)
    return dict(
        query=draw(array(*lead, t, e, scale=long_query, hostile=False)), key=draw(array(*lead, s, e, scale=long_key, hostile=False)),
        value=draw(array(*lead, s, w, scale=0.01 if extreme else 1.0, hostile=hostile and not extreme)), scale=scale,
        alibi_slopes=draw(one_of(left_out(None), slopes, slopes)) if lead else draw(left_out(None)),
    )


def equals_plain_attention(side, query, key, value, causal=False, window=(None, None), alibi_slopes=None, tile=None, **options):
    """The window is a mask, the slopes are a bias, and the dropout mask is the same, bit for bit."""
    t, s = query.shape[-2], key.shape[-2]
    distance = np.arange(s) - (np.arange(t)[:, None] + (s - t))
    left, right = (10**6 if reach is None else reach for reach in window)
    mask = side.array((-left <= distance) & (distance <= right))
    bias = None if alibi_slopes is None else -side.numpy(alibi_slopes)[:, None, None] * np.abs(distance)
    yield from equal(side, "attention.flash_attention", query, key, value, bias, mask, causal,
                     dict(causal=causal, window=window, alibi_slopes=alibi_slopes, tile=tile) | options, options)


def extremes(side, **_):
    """Scores beyond what exp can take, whatever makes them large; tiles that begin beyond what their first query sees; endless windows."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, n, 3)) for n in (9, 6, 6))
    for long_query, long_key, scale, steep in ((1e3, 1, 1.0, None), (1, 1e3, 1.0, None), (1, 1, 1e3, None), (1, 1, 1.0, 1e3)):
        slopes = None if steep is None else side.array(np.array([steep, 0.0]))
        q, k, v = map(side.array, (query * long_query, key * long_key, value))
        yield from equals_plain_attention(side, q, k, v, scale=scale, alibi_slopes=slopes, tile=(4, 2))
    q, k, v = map(side.array, (query[:, 3:], key, value))
    yield from equals_plain_attention(side, q, k, v, causal=True, tile=(4, 2))
    yield from equals_plain_attention(side, q, k, v, window=(2**70, 2**70))


def equal(side, name, query, key, value, bias, mask, causal, given, options):
    """Outputs and gradients of the component `name` and of scaled_dot_product."""
    bias = None if bias is None else side.array(np.ascontiguousarray(np.broadcast_to(bias, (*query.shape[:-1], key.shape[-2]))))
    plain = side.get("attention.scaled_dot_product")
    if side.name == "torch":
        yield "y", side.get(name)(query, key, value, **given), plain(query, key, value, bias, mask=mask, causal=causal, **options)
        return
    got, backward = side.get(name)(query, key, value, **given)
    want, plain_backward = plain(query, key, value, bias, mask=mask, causal=causal, **options)
    yield "y", got, want
    dy = np.cos(np.arange(want.size, dtype=want.dtype)).reshape(want.shape)
    yield from zip(("dquery", "dkey", "dvalue"), backward(dy), plain_backward(dy)[:3], strict=True)


_SPEED = "how much is worked on together is a matter of speed"
_SHIFT = "scores are shifted by their peak, or not, where both serve"
_FAR = "either is further than any key"
_HIDDEN = "keys that no query of the tile sees are looked at once more, and hidden as before"


@case(
    "attention.flash_attention",
    bench=dict(query=array(4, 4, 1024, 64), key=array(4, 4, 1024, 64), value=array(4, 4, 1024, 64), causal=True),
    fixed={"alibi_slopes": "the slopes of ALiBi are constants"},
    also=[equals_plain_attention, extremes, last_queries("attention.flash_attention")],
    equivalent={
        "_TILE = (64, 192) -> _TILE = (65, 192)": _SPEED,
        "_TILE = (64, 192) -> _TILE = (64, 193)": _SPEED,
        "min(rows, t) * min(columns, s) // 2 -> min(rows, t) * min(columns, s) % 2": _SPEED,
        "min(rows, t) * min(columns, s) // 2 -> min(rows, t) * min(columns, s) // 3": _SPEED,
        "min(rows, t) * min(columns, s) -> min(columns, s)": _SPEED,
        "min(rows, t) * min(columns, s) -> min(rows, t)": _SPEED,
        "min(rows, t) -> max(rows, t)": _SPEED,
        "min(columns, s) -> max(columns, s)": _SPEED,
        "_CALM = 20.0 -> _CALM = 20.02": _SHIFT,
        "_CALM = 20.0 -> _CALM = 20.00002": _SHIFT,
        "abs(scale) * _longest(q) * _longest(k) <= _CALM -> abs(scale) * _longest(q) * _longest(k) < _CALM": _SHIFT,
        "np.vecdot(x, x).max(initial=0) -> np.vecdot(x, x).max(initial=1)": _SHIFT,
        "0 if calm else np.finfo(dtype).min -> 1 if calm else np.finfo(dtype).min": "a peak that nothing is shifted by",
        "1 << 40 -> 2 << 40": _FAR,
        "1 << 40 -> 1 << 41": _FAR,
        "stop - 1 -> -1": _HIDDEN,
        "int(high[0]) - start -> -start": _HIDDEN,
        "after < len(keys) -> after <= len(keys)": _HIDDEN,
        "low[-1] > start -> low[-1] >= start": _HIDDEN,
        "sums[sums == 0] = 1 -> sums[sums == 0] = 2": "where nothing is seen, what is divided is 0",
        "0.0 if dropout == 1 else 1 / (1 - dropout) -> 1.0 if dropout == 1 else 1 / (1 - dropout)":
            "where everything is dropped, nothing is left to grow",
        "random_bits(noise, (n, t, s), part=part) >= round(dropout * 2 ** 32) -> "
        "random_bits(noise, (n, t, s), part=part) > round(dropout * 2 ** 32)": "differs once in 2^32 words",
    },
    skip={"nonfinite": "a NaN among hidden values comes through where its tile is worked on, as 0 · NaN, and not where it is skipped"},
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(2, 3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), window=(-1, 0)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), window=(0, -1)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), window=(1.0, None)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), window=3),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), scale=float("nan")),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), soft_cap=0.0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), alibi_slopes=array(3)),
        dict(query=array(2, 3, 4), key=array(2, 3, 4), value=array(2, 3, 4), alibi_slopes=array(3)),
        dict(query=array(2, 3, 4), key=array(2, 3, 4), value=array(2, 3, 4), alibi_slopes=array(1)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=1.5),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=-0.1),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), tile=0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), tile=(2, 3, 4)),
    ],
)
def flash_attention(draw):
    lead, t, s, e, w = sizes(draw)
    given = options(draw)
    if not draw.ordinary and not draw.edges and draw(flag()):  # several tiles of the default size, several pieces of the heads
        lead, (t, s), given["tile"] = draw(one_of((3, 3), (9,))), draw(one_of((130, 130), (100, 200), (140, 99))), None
    return values(draw, lead, t, s, e, w) | given
