"""What top-k is fed: k from 1 to more than there are, ties at the k-th place, more excluded tokens than k leaves."""

from parity.cases import array, case, integer, one_of
from parity.cases.decode._logits import bad_rows, some_rows


@case(
    "decode.keep_top_k",
    gradient=False,
    bench=dict(logits=array(8, 128000), k=50),
    refuses=[*bad_rows(k=1), *(dict(logits=array(2, 3), k=bad) for bad in (0, -1, 1.0, None, True))],
)
def keep_top_k(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, k=draw(one_of(integer(1, v), integer(1, v), v + 3)))
