"""What l2_normalize is fed: any axis, an ε that some rows reach and others do not, and rows exactly as long as ε."""

from parity.cases import array, case, dims, integer, left_out, one_of


@case(
    "ops.l2_normalize",
    refuses=[dict(x=array()), dict(x=array(2, 3), axis=2), dict(x=array(2, 3), axis=-3), dict(x=array(2, 3), eps=0.0)],
)
def l2_normalize(draw):
    if not draw.ordinary and draw(integer(0, 2)) == 0:  # a kink: the gradient is the one of longer vectors
        return dict(x=array(2, 4, low=1.0, high=1.0), eps=2.0)
    shape = draw(dims(min_rank=1, max_rank=4))
    return dict(x=array(*shape, scale=1.0 if draw.ordinary else draw(one_of(1.0, 1e-14))), axis=draw(left_out(integer(-len(shape), len(shape) - 1))), eps=draw(left_out(one_of(1e-12, 1.5))))
