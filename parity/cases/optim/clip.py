"""What clipping is fed: trees of arrays of any rank, none among them, limits far below and far above them; and what it refuses."""

from parity.cases import array, case, dims, integer, number, one_of

_EQUIVALENT = {
    "_PIECE = 32768 -> _PIECE = 32769": "where a long array is cut for summing changes rounding only",
    "_LOW = 1e-30 -> _LOW = 1.001e-30": "just above, a sum in single and one in double agree",
    "_LOW = 1e-30 -> _LOW = 1.000001e-30": "just above, a sum in single and one in double agree",
    "_LOW < squares < math.inf -> _LOW <= squares < math.inf": "at the bound, a sum in single and one in double agree",
    "_LOW < squares < math.inf -> _LOW < squares <= math.inf": "torch overflows there itself, so the gate holds nobody to anything",
}


def _tree(draw):
    scale = draw(one_of(1.0, 1e-3, 100.0))
    tree = {f"layer.{i}": array(*draw(dims(min_rank=0, max_rank=3)), scale=scale) for i in range(draw(integer(0, 4)))}
    return tree | draw(one_of({}, {}, {}, {"long": array(40_000, scale=scale)}))  # longer than what is summed at once


@case("optim.global_norm", gradient=False, equivalent=_EQUIVALENT, refuses=[dict(grads={"w": 1.0}), dict(grads=[1.0])])
def global_norm(draw):
    if draw(one_of(False, False, True)):             # the square of a single entry is lost in float32, torch's norm of it is not
        return dict(grads={"one": array(1, scale=1e-25)})
    return dict(grads=_tree(draw))


@case("optim.clip_by_norm", gradient=False, equivalent={"scale >= 1 -> scale > 1": "at exactly 1 the product is the array itself"},
      refuses=[dict(grads={"w": array(2)}, max_norm=0.0), dict(grads={"w": array(2)}, max_norm=-1.0),
               dict(grads={"w": array(2)}, max_norm=float("inf")), dict(grads={"w": 1.0}, max_norm=1.0)])
def clip_by_norm(draw):
    if draw(one_of(False, False, True)):             # a norm of 2, and limits close to it
        return dict(grads={"w": array(4, low=1.0, high=1.0)}, max_norm=draw(one_of(1.9, 2.1, 3.0)))
    return dict(grads=_tree(draw), max_norm=draw(one_of(1e-7, 1.0, 1e6, number(0.1, 10.0))))


@case("optim.clip_by_value", gradient=False, refuses=[dict(grads={"w": array(2)}, limit=0.0),
                                                      dict(grads={"w": array(2)}, limit=-1.0),
                                                      dict(grads={"w": array(2)}, limit=float("nan")),
                                                      dict(grads={"w": 1.0}, limit=1.0)])
def clip_by_value(draw):
    return dict(grads=_tree(draw), limit=draw(one_of(1e-3, 0.5, 1e6)))
