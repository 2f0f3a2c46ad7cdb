"""What qk_norm is fed: queries and keys of one width and other leading axes, each with a scale or none."""

from parity.cases import array, case, dims, left_out, maybe, one_of


@case(
    "ops.qk_norm",
    refuses=[
        dict(query=array(2, 3), key=array(2, 4)),
        dict(query=array(2, 3), key=array(2, 3), query_weight=array(2)),
        dict(query=array(2, 3), key=array(2, 3), key_weight=array(1, 3)),
        dict(query=array(2, 0), key=array(2, 0)),
        dict(query=array(), key=array()),
        dict(query=array(3), key=array()),
        dict(query=array(2, 3), key=array(2, 3), eps=-1e-6),
    ],
)
def qk_norm(draw):
    *leading, d = draw(dims(min_rank=1, max_rank=4, min_last=1))
    others = draw(one_of(leading, leading[:-1], [2, *leading]))
    return dict(query=draw(array(*leading, d)), key=draw(array(*others, d)), query_weight=draw(left_out(maybe(array(d)))),
                key_weight=draw(left_out(maybe(array(d)))), eps=draw(left_out(one_of(1e-6, 1e-5, 0.1))))
