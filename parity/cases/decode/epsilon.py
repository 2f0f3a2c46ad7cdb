"""What epsilon and eta sampling are fed: bounds that all, some and no tokens reach; minima up to more than there are."""

import numpy as np

from parity.cases import array, case, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_rows

_REFUSES = [
    *bad_rows(epsilon=0.1),
    *(dict(logits=array(2, 3), epsilon=bad) for bad in (0.0, 1.0, -0.1, float("nan"), None)),
    *(dict(logits=array(2, 3), epsilon=0.5, minimum=bad) for bad in (0, 1.5)),
]
_BENCH = dict(logits=array(8, 128000, scale=4.0), epsilon=3e-4)


def a_probability_that_is_reached_is_enough(side, logits, **options):
    """One of two equals has a half."""
    two = side.array(np.zeros((1, 2)))
    yield "a half", side.get("decode.keep_epsilon")(two, epsilon=0.5), np.zeros((1, 2))


@case("decode.keep_epsilon", gradient=False, also=[a_probability_that_is_reached_is_enough], bench=_BENCH, refuses=_REFUSES)
def keep_epsilon(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, epsilon=draw(one_of(3e-4, 0.0217, 0.0837, 0.217, 0.937)), minimum=draw(left_out(integer(1, v + 1))))


def the_bound_lies_where_the_formula_has_it(side, logits, **options):
    """Of two tokens the second goes where log p falls below ½ log ε − H, found here by halving for ε = 0.9."""

    def left(gap):
        p = np.exp([0.0, -gap]) / np.exp([0.0, -gap]).sum()
        return np.log(p[1]) - (p * np.log(p)).sum() - 0.5 * np.log(0.9)

    low, high = 0.0, 10.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > 0 else (low, middle)
    for gap, want in ((low - 1e-9, -low + 1e-9), (high + 1e-9, -np.inf)):
        yield f"at {gap}", side.get("decode.keep_eta")(side.array(np.array([[0.0, -gap]])), epsilon=0.9), np.array([[0.0, want]])


@case(
    "decode.keep_eta",
    gradient=False,
    also=[the_bound_lies_where_the_formula_has_it],
    bench=_BENCH,
    refuses=_REFUSES,
    equivalent={"z >= log_total + log_eta -> z > log_total + log_eta": "rounding decides on which side an equality falls"},
)
def keep_eta(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, epsilon=draw(one_of(3e-4, 0.0217, 0.0837, 0.217, 0.937)), minimum=draw(left_out(integer(1, v + 1))))
