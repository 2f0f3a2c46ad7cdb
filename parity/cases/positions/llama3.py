"""What Llama 3.1's three bands are fed: trained lengths and bases that put pairs into each of them."""

import math

import numpy as np

from parity.cases import case, integer, left_out, number, one_of


def three_bands(side, width, factor, original_length, low_freq_factor=1.0, high_freq_factor=4.0, base=10000.0):
    """Pair by pair: kept, interpolated, or mixed in proportion to its turns."""
    options = dict(low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor, base=base)
    function = side.get("positions.llama3_frequencies")
    frequencies = side.numpy(function(width, factor=factor, original_length=original_length, **options))
    for pair, got in enumerate(frequencies):
        frequency = base ** (-2 * pair / width)
        wavelength = 2 * math.pi / frequency
        if wavelength <= original_length / high_freq_factor:
            slowed = 1.0
        elif wavelength >= original_length / low_freq_factor:
            slowed = factor
        else:
            share = (original_length / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
            slowed = 1 / (share + (1 - share) / factor)
        yield f"logarithm of what pair {pair} is slowed by", np.log(frequency / got), math.log(slowed)


@case(
    "positions.llama3_frequencies",
    gradient=False,
    also=[three_bands],
    refuses=[
        dict(width=3, factor=2.0, original_length=100),
        dict(width=4, factor=0.5, original_length=100),
        dict(width=4, factor=2.0, original_length=0),
        dict(width=4, factor=2.0, original_length=100, low_freq_factor=0.0),
        dict(width=4, factor=2.0, original_length=100, low_freq_factor=4.0),
        dict(width=4, factor=2.0, original_length=100, high_freq_factor=1.0),
        dict(width=4, factor=2.0, original_length=100, base=0.0),
    ],
    bench=dict(width=128, factor=8.0, original_length=8192, base=500000.0),
)
def llama3_frequencies(draw):
    low = draw(left_out(one_of(1.0, 0.5, number(0.2, 2.0))))
    return dict(width=2 * draw(integer(0, 12)), factor=draw(one_of(1, 8.0, number(1.0, 40.0))),
                original_length=draw(one_of(1, 40, 512, integer(10, 9000))), low_freq_factor=low,
                high_freq_factor=draw(left_out(one_of(4.0, 3, number(2.5, 20.0)))), base=draw(left_out(one_of(10000.0, 100.0, 5e5))))
