"""What linear and its twin with a frozen weight are fed: any (..., I), a weight (O, I), a bias or none; and what they refuse."""

from parity.cases import array, case, dims, ids, left_out, maybe, size

_BENCH = dict(x=array(1024, 768), weight=array(3072, 768, scale=0.03), bias=array(3072))
_BAD = [
    dict(x=array(2, 3), weight=array(4, 2)),
    dict(x=array(2, 3), weight=array(3)),
    dict(x=array(), weight=array(4, 3)),
    dict(x=array(2, 3), weight=array(4, 3), bias=array(3)),
    dict(x=array(2, 3), weight=array(4, 3), bias=array(1, 4)),
    dict(x=ids(2, 3, below=4), weight=array(4, 3)),
]


def _equals_linear(side, x, weight, bias=None):
    """A frozen weight changes nothing but that it has no gradient."""
    got, want = side.get("ops.frozen_linear")(x, bias, weight=weight), side.get("ops.linear")(x, weight, bias)
    if side.name == "torch":
        yield "y", got, want
        return
    (y, backward), (wanted, linear_backward) = got, want
    yield "y", y, wanted
    (dx, dbias), (dx_wanted, _, dbias_wanted) = backward(y), linear_backward(y)
    yield "dx", dx, dx_wanted
    if bias is not None:
        yield "dbias", dbias, dbias_wanted


@case("ops.linear", bench=_BENCH, refuses=_BAD)
def linear(draw):
    return _drawn(draw)


@case("ops.frozen_linear", bench=_BENCH, refuses=_BAD, fixed={"weight": "it is not trained"}, also=[_equals_linear])
def frozen_linear(draw):
    return _drawn(draw)


def _drawn(draw):
    *batch, inputs = draw(dims(max_rank=4))
    outputs = draw(size(0, 6))
    weight = draw(array(outputs, inputs, scale=max(inputs, 1) ** -0.5))
    return dict(x=draw(array(*batch, inputs)), weight=weight, bias=draw(left_out(maybe(array(outputs)))))
