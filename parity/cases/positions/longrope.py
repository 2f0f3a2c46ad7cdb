"""What LongRoPE is fed: a factor for every pair, as a list or a tuple, and lengths on both sides of the trained one."""

import math

from parity.cases import case, integer, left_out, maybe, number, one_of


def chosen_by_length(side, width, short_factor, long_factor, original_length, length=None, base=10000.0):
    """Pair by pair; up to T tokens, and where no length is known, the short factors."""
    options = dict(short_factor=short_factor, long_factor=long_factor, original_length=original_length, length=length, base=base)
    frequencies = side.numpy(side.get("positions.longrope_frequencies")(width, **options))
    for pair, got in enumerate(frequencies):
        factor = (long_factor if length is not None and length > original_length else short_factor)[pair]
        yield f"logarithm of pair {pair}", math.log(got), -math.log(factor) - 2 * pair / width * math.log(base)


_PAIR = dict(short_factor=[1.0, 1.5], long_factor=[1.0, 4.0])


@case(
    "positions.longrope_frequencies",
    gradient=False,
    also=[chosen_by_length],
    refuses=[
        dict(width=3, **_PAIR, original_length=8),
        dict(width=6, **_PAIR, original_length=8),
        dict(width=4, short_factor=[1.0], long_factor=[1.0, 2.0], original_length=8),
        dict(width=4, short_factor=[1.0, 2.0], long_factor=[1.0, 2.0, 3.0], original_length=8),
        dict(width=4, short_factor=[1.0, 0.0], long_factor=[1.0, 2.0], original_length=8),
        dict(width=4, short_factor=[1.0, 2.0], long_factor=[1.0, "2"], original_length=8),
        dict(width=4, **_PAIR, original_length=0),
        dict(width=4, **_PAIR, original_length=8, length=-1),
        dict(width=4, **_PAIR, original_length=8, base=0.0),
    ],
    bench=dict(width=128, short_factor=[1.0] * 64, long_factor=[4.0] * 64, original_length=4096, length=8192),
)
def longrope_frequencies(draw):
    pairs = draw(integer(0, 6))
    factors = {name: [draw(one_of(1, number(0.5, 60.0))) for _ in range(pairs)] for name in ("short_factor", "long_factor")}
    return dict(width=2 * pairs, short_factor=factors["short_factor"], long_factor=tuple(factors["long_factor"]),
                original_length=draw(one_of(1, 7, 512)), length=draw(left_out(maybe(one_of(0, 1, 7, 8, 512, 513)))),
                base=draw(left_out(one_of(10000.0, 500.0, 10))))


@case(
    "positions.longrope_attention_factor",
    gradient=False,
    refuses=[
        dict(factor=0.5, original_length=512),
        dict(factor=2.0, original_length=1),
        dict(factor=2.0, original_length=512.0),
    ],
    bench=dict(factor=32.0, original_length=4096),
)
def longrope_attention_factor(draw):
    return dict(factor=draw(one_of(1, 32, number(1.0, 64.0))), original_length=draw(one_of(2, 4096, integer(2, 9000))))
