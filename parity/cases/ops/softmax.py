"""What the softmax family is fed: any axis, masks that broadcast or are left out, rows of which nothing is kept, temperatures."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, number, one_of

_REFUSED: list[dict] = [dict(x=array()),
                        dict(x=array(2, 3), axis=2),
                        dict(x=array(2, 3), axis=-3),
                        dict(x=array(2, 3), axis=1.0),
                        dict(x=array(2, 3), mask=mask(2)),
                        dict(x=array(2, 3), mask=mask(1, 2, 3)),
                        dict(x=array(2, 3), mask=array(2, 3))]
_COLD: list[dict] = [dict(x=array(2, 3), temperature=t) for t in (0.0, -1.0, float("inf"))]
_ALIKE = {f"size * after -> {part}": "how much is worked on at a time shows in no result" for part in ("size", "after")}


def _drawn(draw):
    shape = draw(dims(min_rank=1, max_rank=4))
    rank = len(shape)
    smaller = shape[draw(integer(0, rank - 1)):]
    broadcast = tuple(draw(one_of(n, 1)) for n in smaller)
    return dict(x=draw(array(*shape)), axis=draw(left_out(integer(-rank, rank - 1))), mask=draw(left_out(maybe(mask(*broadcast)))))


@case("ops.softmax", refuses=_REFUSED + _COLD, equivalent=_ALIKE)
def softmax(draw):
    return _drawn(draw) | dict(temperature=draw(left_out(one_of(2.0, number(0.2, 3.0)))))


@case("ops.log_softmax", refuses=_REFUSED + _COLD, equivalent=_ALIKE)
def log_softmax(draw):
    return _drawn(draw) | dict(temperature=draw(left_out(one_of(2.0, number(0.2, 3.0)))))


@case("ops.logsumexp", refuses=_REFUSED, equivalent=_ALIKE)
def logsumexp(draw):
    return _drawn(draw) | dict(keepdims=draw(left_out(flag())))
