"""What the rectifiers are fed: any shape, any slope from 0 on."""

from parity.cases import array, case, dims, left_out, one_of


@case("ops.relu", refuses=[dict(x=3.0)])
def relu(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)))))


@case("ops.relu_squared", refuses=[dict(x=3.0)])
def relu_squared(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)))))


@case("ops.leaky_relu", refuses=[dict(x=3.0), dict(x=array(2), negative_slope=-0.1), dict(x=array(2), negative_slope=float("inf"))])
def leaky_relu(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)))), negative_slope=draw(left_out(one_of(0.0, 0.2, 1.0, 1.5))))
