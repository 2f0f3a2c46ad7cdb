"""What epsilon and eta sampling are fed: bounds that all, some and no tokens reach; minima up to more than there are."""

from parity.cases import array, case, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_rows

_REFUSES = [
    *bad_rows(epsilon=0.1),
    *(dict(logits=array(2, 3), epsilon=bad) for bad in (0.0, 1.0, -0.1, float("nan"), None)),
    *(dict(logits=array(2, 3), epsilon=0.5, minimum=bad) for bad in (0, 1.5)),
]
_BENCH = dict(logits=array(8, 128000, scale=4.0), epsilon=3e-4)


@case("decode.keep_epsilon", gradient=False, bench=_BENCH, refuses=_REFUSES)
def keep_epsilon(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, epsilon=draw(one_of(3e-4, 0.0217, 0.0837, 0.217, 0.937)), minimum=draw(left_out(integer(1, v + 1))))


@case("decode.keep_eta", gradient=False, bench=_BENCH, refuses=_REFUSES)
def keep_eta(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, epsilon=draw(one_of(3e-4, 0.0217, 0.0837, 0.217, 0.937)), minimum=draw(left_out(integer(1, v + 1))))
