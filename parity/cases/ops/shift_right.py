"""What shift_right is fed: labels of any rank and length, some of which do not count."""

from parity.cases import array, case, dims, ids, integer, left_out, one_of


@case(
    "ops.shift_right",
    gradient=False,
    refuses=[dict(labels=array(2, 3), start=0, padding=0), dict(labels=ids(below=3), start=0, padding=0)],
)
def shift_right(draw):
    low, high = draw(one_of((-1, 3), (-102, -98)))
    return dict(
        labels=draw(ids(*draw(dims()), below=high, at_least=low)), start=draw(integer(0, 5)), padding=draw(integer(0, 5)),
        ignore_index=draw(left_out(one_of(-99, -1, 1))),
    )
