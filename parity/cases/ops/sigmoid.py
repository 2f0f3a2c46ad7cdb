"""What the squashing functions are fed: any shape."""

from parity.cases import array, case, dims, one_of


@case("ops.sigmoid", refuses=[dict(x=3.0)])
def sigmoid(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 4.0)))))


@case("ops.tanh", refuses=[dict(x=3.0)])
def tanh(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 4.0)))))
