"""What sinusoidal positions are fed: even, odd and empty tables, bases, offsets; in float64 the table is also held to its formula."""

import numpy as np

from parity.cases import case, integer, left_out, one_of, size


def points_on_circles(side, length, width, base=10000.0, offset=0):
    """In this side's dtype, column 2i + (column 2i + 1)·√−1 is √−1 · exp(−√−1 · t · ω_i)."""
    table = side.get("positions.sinusoidal")(length, width, base=base, offset=offset, dtype=side.dtype)
    yield "dtype", side.numpy(table).dtype == np.float64, True
    t, i = np.arange(length)[:, None] + offset, np.arange((width + 1) // 2)
    point = 1j * np.exp(-1j * t / np.exp(2 * i * (np.log(base) / max(width, 1))))
    yield "table", table, np.stack([point.real, point.imag], -1).reshape(length, i.size * 2)[:, :width]


@case(
    "positions.sinusoidal",
    gradient=False,
    also=[points_on_circles],
    refuses=[
        dict(length=-1, width=4),
        dict(length=3, width=-1),
        dict(length=3, width=4.0),
        dict(length=3, width=4, offset=-1),
        dict(length=3, width=4, base=0.0),
        dict(length=3, width=4, base=float("inf")),
    ],
    bench=dict(length=4096, width=768),
    equivalent={"_STEPS = 64 -> _STEPS = 65": "the table does not depend on how it is cut"},
)
def sinusoidal(draw):
    return dict(length=draw(size(0, 20)), width=draw(size(0, 9)), base=draw(left_out(one_of(10000.0, 500.0, 1e6))),
                offset=draw(left_out(one_of(0, integer(1, 3000)))))
