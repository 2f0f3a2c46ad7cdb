"""What attention is fed: equal and unequal lengths, biases and masks of every broadcast, rows that see nothing, long sequences."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries


def broadcast(draw, *shape):
    """A shape that broadcasts to `shape`: leading axes left out, others of size 1."""
    kept = shape[draw(integer(0, len(shape) - 1)):]
    return [draw(one_of(n, 1)) for n in kept]


_TRIANGLE = "the triangle that is masked then begins at an earlier key, all of whose queries see it"
_PIECES = "how much is worked on together is a matter of speed"


@case(
    "attention.scaled_dot_product",
    also=[last_queries("attention.scaled_dot_product")],
    bench=dict(query=array(8, 4, 256, 64), key=array(8, 4, 256, 64), value=array(8, 4, 256, 64), causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(2, 3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), bias=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=mask(2, 3, 3)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=array(3, 3)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), scale=float("nan")),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), soft_cap=0.0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=1.5),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=-0.1),
    ],
    equivalent={
        "64 if causal else 256 -> 65 if causal else 256": _PIECES,
        "64 if causal else 256 -> 64 if causal else 257": _PIECES,
        "math.prod(shape[1:]) // 4 -> math.prod(shape[1:]) % 4": _PIECES,
        "math.prod(shape[1:]) // 4 -> math.prod(shape[1:]) // 5": _PIECES,
        "shape[1:] -> shape[2:]": _PIECES,
        "stop + s - t -> stop + s + t": "keys that no query of the strip may see are then computed and masked, not skipped",
        "stop + s - t -> stop + s": "keys that no query of the strip may see are then computed and masked, not skipped",
        "rows.start + s - t -> -t": _TRIANGLE,
        "rows.start + s -> rows.start - s": _TRIANGLE,
        "rows.start + s -> s": _TRIANGLE,
        "rows.start + s -> rows.start": _TRIANGLE,
        "max(stop + s - t, 0) -> max(stop + s - t, 1)": "one more key is computed and masked",
        "random_bits(noise, shape) >= round(dropout * 2 ** 32) -> random_bits(noise, shape) > round(dropout * 2 ** 32)":
            "differs once in 2^32 words",
        "0.0 if dropout == 1 else 1 / (1 - dropout) -> 1.0 if dropout == 1 else 1 / (1 - dropout)":
            "where everything is dropped, nothing is left to grow",
    },
)
def scaled_dot_product(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    causal = draw(left_out(flag()))
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips
        lead, causal = (), True
        t, s = draw(one_of((130, 130), (70, 200), (140, 66)))
    drops = draw(one_of("a share", "a share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        bias=draw(one_of(left_out(None), array(*broadcast(draw, *lead, t, s)))),
        mask=draw(one_of(left_out(None), mask(*lead, t, s), mask(*broadcast(draw, *lead, t, s), p=0.9))),
        causal=causal,
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
        dropout=draw(left_out(0.0)) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )
