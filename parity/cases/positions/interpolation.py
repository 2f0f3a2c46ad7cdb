"""What position interpolation is fed: widths from no pair on, factors from 1 on, bases; and that it is positions that are squeezed."""

import numpy as np

from parity.cases import case, integer, left_out, number, one_of


def squeezed_positions(side, width, factor, base=10000.0):
    """Token t turns every pair as far as position t / s turned it before."""
    frequencies = side.numpy(side.get("positions.interpolated_frequencies")(width, factor=factor, base=base))
    for pair, frequency in enumerate(frequencies):
        yield f"logarithm of pair {pair}", np.log(frequency), -np.log(factor) - 2 * pair / width * np.log(base)


@case(
    "positions.interpolated_frequencies",
    gradient=False,
    also=[squeezed_positions],
    refuses=[
        dict(width=3, factor=2.0),
        dict(width=-2, factor=2.0),
        dict(width=4, factor=0.9),
        dict(width=4, factor=float("nan")),
        dict(width=4, factor=float("inf")),
        dict(width=4, factor=2.0, base=0.0),
    ],
    bench=dict(width=128, factor=8.0),
)
def interpolated_frequencies(draw):
    return dict(width=2 * draw(integer(0, 8)), factor=draw(one_of(1, 1.0, 4, number(1.0, 40.0))),
                base=draw(left_out(one_of(10000.0, 500.0, 10, 5e5))))
