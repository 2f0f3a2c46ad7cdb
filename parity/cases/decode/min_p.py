"""What min-p is fed: shares from 0 to 1; minima up to more than there are."""

from parity.cases import array, case, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_rows


@case(
    "decode.keep_min_p",
    gradient=False,
    bench=dict(logits=array(8, 128000, scale=4.0), p=0.1),
    equivalent={"minimum > 1 -> minimum >= 1": "the best one is kept by its own probability"},
    refuses=[
        *bad_rows(p=0.1),
        *(dict(logits=array(2, 3), p=bad) for bad in (-0.1, 1.001, float("nan"), None)),
        *(dict(logits=array(2, 3), p=0.5, minimum=bad) for bad in (0, 1.5)),
    ],
)
def keep_min_p(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, p=draw(one_of(0, 0.0137, 0.137, 0.613, 1.0)), minimum=draw(left_out(integer(1, v + 1))))
