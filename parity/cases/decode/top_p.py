"""What top-p is fed: shares that keep one token, some, all but the last and all; minima up to more than there are."""

import numpy as np

from parity.cases import array, case, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_rows


def a_sum_that_is_reached_is_enough(side, logits, **options):
    """Two of four equals hold a half."""
    four = side.array(np.zeros((1, 4)))
    yield "a half", side.get("decode.keep_top_p")(four, p=0.5), np.array([[0.0, 0.0, -np.inf, -np.inf]])


@case(
    "decode.keep_top_p",
    gradient=False,
    also=[a_sum_that_is_reached_is_enough],
    bench=dict(logits=array(8, 128000, scale=4.0), p=0.9),
    refuses=[
        *bad_rows(p=0.9),
        *(dict(logits=array(2, 3), p=bad) for bad in (0.0, -0.1, 1.001, float("nan"), None)),
        *(dict(logits=array(2, 3), p=0.5, minimum=bad) for bad in (0, 1.5)),
    ],
)
def keep_top_p(draw):
    logits, v = some_rows(draw)
    p = draw(one_of(1e-7, 0.137, 0.613, 0.613, 0.913, 0.913, 0.9937, 1, 1.0))
    return dict(logits=logits, p=p, minimum=draw(left_out(integer(1, v + 1))))
