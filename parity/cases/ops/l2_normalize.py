"""What l2_normalize is fed: any axis, vectors shorter than the default ε, and an ε that some of them reach and others do not."""

from parity.cases import array, case, dims, flag, integer, left_out, one_of


@case(
    "ops.l2_normalize",
    refuses=[dict(x=array()), dict(x=array(2, 3), axis=2), dict(x=array(2, 3), axis=-3), dict(x=array(2, 3), eps=0.0)],
)
def l2_normalize(draw):
    shape = draw(dims(min_rank=1, max_rank=4))
    axis = draw(left_out(integer(-len(shape), len(shape) - 1)))
    if not draw.ordinary and draw(flag()):
        return dict(x=array(*shape, scale=1e-14), axis=axis)
    return dict(x=array(*shape), axis=axis, eps=draw(left_out(one_of(1e-12, 1.5))))
