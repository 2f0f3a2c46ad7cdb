"""What rms_norm is fed: any (..., D), more rows than a block now and then, both forms of the scale or none, several ε."""

from parity.cases import array, case, dims, flag, left_out, maybe, one_of


@case(
    "ops.rms_norm",
    refuses=[
        dict(x=array(2, 3), weight=array(2)),
        dict(x=array(2, 3), weight=array(1, 3)),
        dict(x=array(2, 0)),
        dict(x=array()),
        dict(x=array(2, 3), eps=-1e-6),
    ],
)
def rms_norm(draw):
    shape = draw(dims(min_rank=1, max_rank=4, min_last=1))
    *batch, d = draw(one_of(shape, shape, shape, (70, 500)))
    return dict(x=draw(array(*batch, d)), weight=draw(one_of(array(d), left_out(maybe(array(d))))),
                eps=draw(left_out(one_of(1e-6, 1e-5, 0.1))), unit_offset=draw(left_out(flag())))
