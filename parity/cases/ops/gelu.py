"""What the GELUs are fed: any shape."""

import math

from parity.cases import array, case, dims, one_of


def _drawn(draw):
    # Between −9 and −5 torch's 1 + erf and 1 + tanh have lost most of their digits: enter only in the company of larger numbers.
    shape = draw(dims(min_rank=0))
    scale = draw(one_of(1.0, 4.0)) if math.prod(shape) > 8 else 1.0
    return dict(x=draw(array(*shape, scale=scale, hostile=scale == 1.0 and math.prod(shape) != 1)))


@case("ops.gelu", refuses=[dict(x=3.0)])
def gelu(draw):
    return _drawn(draw)


@case("ops.gelu_tanh", refuses=[dict(x=3.0)])
def gelu_tanh(draw):
    return _drawn(draw)


@case("ops.gelu_sigmoid", refuses=[dict(x=3.0)])
def gelu_sigmoid(draw):
    return _drawn(draw)
