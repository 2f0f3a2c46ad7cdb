"""What NTK-aware scaling is fed: widths from two pairs on, and lengths below, at and beyond the trained one."""

import numpy as np

from parity.cases import case, integer, left_out, maybe, number, one_of

_FACTOR = one_of(1, 1.0, 2, 4.0, number(1.0, 40.0))
_BASE = left_out(one_of(10000.0, 500.0, 10, 5e5))


def ends(side, width, factor, base=10000.0):
    """The fastest pair is kept, the slowest is slowed by exactly s, and in between the ratio grows evenly."""
    frequencies = side.numpy(side.get("positions.ntk_frequencies")(width, factor=factor, base=base))
    plain = np.array([base ** (-2 * i / width) for i in range(width // 2)])
    yield "logarithm of what pairs are slowed by", np.log(plain / frequencies), np.linspace(0, np.log(factor), width // 2)


def grows(side, width, factor, original_length, length=None, base=10000.0):
    """Nothing changes up to T tokens; from there the slowest pair is slowed by 1 more for every T / s tokens more."""
    function = side.get("positions.dynamic_ntk_frequencies")
    frequencies = side.numpy(function(width, factor=factor, original_length=original_length, length=length, base=base))
    slowed = 1 + factor * max((length or 0) - original_length, 0) / original_length
    plain = np.array([base ** (-2 * i / width) for i in range(width // 2)])
    yield "logarithm of what pairs are slowed by", np.log(plain / frequencies), np.linspace(0, np.log(slowed), width // 2)


@case(
    "positions.ntk_frequencies",
    gradient=False,
    also=[ends],
    refuses=[
        dict(width=2, factor=2.0),
        dict(width=5, factor=2.0),
        dict(width=4, factor=0.5),
        dict(width=4, factor=2.0, base=-1.0),
    ],
    bench=dict(width=128, factor=8.0),
)
def ntk_frequencies(draw):
    return dict(width=2 * draw(integer(2, 8)), factor=draw(_FACTOR), base=draw(_BASE))


@case(
    "positions.dynamic_ntk_frequencies",
    gradient=False,
    also=[grows],
    refuses=[
        dict(width=2, factor=2.0, original_length=8),
        dict(width=5, factor=2.0, original_length=8),
        dict(width=4, factor=0.5, original_length=8),
        dict(width=4, factor=2.0, original_length=0),
        dict(width=4, factor=2.0, original_length=8, length=-1),
        dict(width=4, factor=2.0, original_length=8, length=9.5),
        dict(width=4, factor=2.0, original_length=8, base=0.0),
    ],
    bench=dict(width=128, factor=8.0, original_length=4096, length=8192),
)
def dynamic_ntk_frequencies(draw):
    return dict(width=2 * draw(integer(2, 8)), factor=draw(_FACTOR), original_length=draw(one_of(1, 7, 512)),
                length=draw(left_out(maybe(one_of(0, 7, 8, 512, 513, integer(100, 5000))))), base=draw(_BASE))
