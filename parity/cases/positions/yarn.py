"""What YaRN is fed: ramps that begin before the first pair, end beyond the last, have no length, or lie between two pairs."""

import math

import numpy as np

from parity.cases import case, integer, left_out, number, one_of


def ramp(side, width, factor, original_length, beta_fast=32.0, beta_slow=1.0, truncate=True, base=10000.0):
    """Pair by pair: the turns of a fractional pair, found by bisection, say where the ramp begins and ends."""
    options = dict(beta_fast=beta_fast, beta_slow=beta_slow, truncate=truncate, base=base)
    frequencies = side.numpy(side.get("positions.yarn_frequencies")(width, factor=factor, original_length=original_length, **options))
    if width == 0:
        return

    def pair_with(turns):
        low, high = -1000.0 * width, 1000.0 * width
        for _ in range(200):
            middle = (low + high) / 2
            # more turns than that, in logarithms: the pair lies further on
            further = math.log(original_length / (2 * math.pi)) - 2 * middle / width * math.log(base) > math.log(turns)
            low, high = (middle, high) if further else (low, middle)
        return low

    start, end = pair_with(beta_fast), pair_with(beta_slow)
    near_whole = min(abs(start - round(start)), abs(end - round(end))) < 1e-6
    if truncate:
        start, end = (round(start), round(end)) if near_whole else (math.floor(start), math.ceil(end))
    start, end = (min(max(place, 0), width - 1) for place in (start, end))
    if near_whole or 0 < end - start < 1e-6:
        return  # what is rounded, or divided by, depends on the last bit
    for pair, got in enumerate(frequencies):
        share = 0.0 if pair <= start else 1.0 if pair >= end else (pair - start) / (end - start)
        slowed = 1 / (1 - share + share / factor)
        yield f"logarithm of what pair {pair} is slowed by", np.log(base ** (-2 * pair / width) / got), math.log(slowed)


@case(
    "positions.yarn_frequencies",
    gradient=False,
    also=[ramp],
    refuses=[
        dict(width=3, factor=2.0, original_length=100),
        dict(width=4, factor=0.5, original_length=100),
        dict(width=4, factor=2.0, original_length=0),
        dict(width=4, factor=2.0, original_length=100, beta_slow=0.0),
        dict(width=4, factor=2.0, original_length=100, beta_fast=0.5),
        dict(width=4, factor=2.0, original_length=100, beta_slow=33.0),
        dict(width=4, factor=2.0, original_length=100, base=1.0),
        dict(width=4, factor=2.0, original_length=100, base=0.0),
    ],
    bench=dict(width=128, factor=8.0, original_length=4096),
)
def yarn_frequencies(draw):
    # with so small a base one turn stands beyond the last place that a ramp may end at
    beyond = draw(one_of(dict(original_length=draw(integer(650, 1200)), base=10), dict(original_length=100, base=2.0)))
    before = dict(original_length=draw(one_of(1, 20)))
    ramp = dict(original_length=draw(integer(300, 9000)), base=draw(left_out(one_of(10000.0, 100.0, 5e5))))
    after = dict(original_length=10**6, base=100.0)
    betas = [dict(beta_fast=draw(one_of(8, number(5.0, 60.0)))), dict(beta_slow=draw(number(0.1, 4.0))),
             dict(beta_fast=draw(number(5.0, 20.0)), beta_slow=draw(number(0.5, 5.0))), dict(beta_fast=3.0, beta_slow=3.0)]
    setting = draw(one_of(beyond, before, after, ramp, ramp, ramp | draw(one_of(*betas)), ramp | draw(one_of(*betas))))
    return dict(width=2 * draw(one_of(integer(0, 3), integer(4, 16), integer(4, 16))), **setting,
                factor=draw(one_of(1, 8.0, number(2.0, 40.0), number(2.0, 40.0))), truncate=draw(left_out(one_of(False, False, True))))


@case(
    "positions.yarn_attention_factor",
    gradient=False,
    refuses=[
        dict(factor=0.5),
        dict(factor=float("nan")),
        dict(factor=2.0, mscale=-0.1),
        dict(factor=2.0, mscale_all_dim=-0.1),
    ],
    bench=dict(factor=32.0),
)
def yarn_attention_factor(draw):
    return dict(factor=draw(one_of(1, 32, number(1.0, 64.0))), mscale=draw(left_out(one_of(0, 1, 0.707, 2.0))),
                mscale_all_dim=draw(left_out(one_of(0, 1, 0.707, 2.0))))
