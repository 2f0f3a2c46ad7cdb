"""What the gated units are fed: a gate and an up of one shape; and what they refuse."""

import math

from parity.cases import array, case, dims

_REFUSED: list[dict] = [dict(gate=array(2, 3), up=array(2, 1)), dict(gate=array(2, 3), up=array(3)), dict(gate=3.0, up=array(3))]


def _drawn(draw):
    shape = draw(dims(min_rank=0))
    many = math.prod(shape) != 1  # a lone gate far out on the left would show only how torch's GELU cancels there
    return dict(gate=draw(array(*shape, hostile=many)), up=draw(array(*shape)))


@case("ops.glu", refuses=_REFUSED)
def glu(draw):
    return _drawn(draw)


@case("ops.reglu", refuses=_REFUSED)
def reglu(draw):
    return _drawn(draw)


@case("ops.geglu", refuses=_REFUSED)
def geglu(draw):
    return _drawn(draw)


@case("ops.geglu_tanh", refuses=_REFUSED)
def geglu_tanh(draw):
    return _drawn(draw)


@case("ops.swiglu", refuses=_REFUSED)
def swiglu(draw):
    return _drawn(draw)


@case("ops.bilinear", refuses=_REFUSED)
def bilinear(draw):
    return _drawn(draw)
