"""What the rectifiers are fed: any shape, any slope in [0, 1], and now and then nothing but the kink itself."""

from parity.cases import array, case, dims, left_out, one_of


def _drawn(draw):
    shape = draw(dims(min_rank=0))
    at_zero = not draw.ordinary and draw(one_of(False, False, True))
    return draw(array(*shape, low=0.0, high=0.0) if at_zero else array(*shape))


@case("ops.relu", refuses=[dict(x=3.0)])
def relu(draw):
    return dict(x=_drawn(draw))


@case("ops.relu_squared", refuses=[dict(x=3.0)])
def relu_squared(draw):
    return dict(x=_drawn(draw))


@case("ops.leaky_relu", refuses=[dict(x=3.0), dict(x=array(2), negative_slope=-0.1), dict(x=array(2), negative_slope=1.1)])
def leaky_relu(draw):
    return dict(x=_drawn(draw), negative_slope=draw(left_out(one_of(0.0, 0.2, 1.0))))
