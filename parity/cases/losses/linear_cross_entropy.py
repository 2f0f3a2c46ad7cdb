"""What linear_cross_entropy is fed, its weight trained or frozen: several chunk sizes, tokens that do not count, none at all; both equal
linear and cross_entropy."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, integer, left_out, number, one_of, size
from parity.cases.losses.cross_entropy import token_ids


def equals_linear_and_cross_entropy(side, hidden, weight, chunk=None, **options):
    """The chunk size does not matter, and all logits at once give the same."""
    chunked = side.get("losses.linear_cross_entropy")(hidden, weight, chunk=1 if chunk is None else chunk, **options)
    linear, cross_entropy = side.get("ops.linear"), side.get("losses.cross_entropy")
    if side.name == "torch":
        yield "loss", chunked, cross_entropy(linear(hidden, weight), **options)
        return
    (loss, backward), (logits, linear_backward) = chunked, linear(hidden, weight)
    want, want_backward = cross_entropy(logits, **options)
    for dloss in (np.array(1.0), np.array(2.0), np.array(1.5)):
        names = (f"{name} for dloss = {dloss}" for name in ("dhidden", "dweight"))
        yield from zip(names, backward(dloss), linear_backward(want_backward(dloss)), strict=False)
    yield "loss", loss, want


def frozen_equals_trained(side, hidden, weight, **options):
    """A frozen weight changes nothing but that it has no gradient."""
    got = side.get("losses.frozen_linear_cross_entropy")(hidden, weight=weight, **options)
    want = side.get("losses.linear_cross_entropy")(hidden, weight, **options)
    if side.name == "torch":
        yield "loss", got, want
        return
    yield "loss", got[0], want[0]
    for dloss in (np.array(1.0), np.array(2.0), np.array(1.5)):
        yield f"dhidden for dloss = {dloss}", got[1](dloss), want[1](dloss)[0]


_BENCH = dict(hidden=array(1024, 256), weight=array(8192, 256, scale=0.06), targets=ids(1024, below=8192))
_BAD = [
    dict(hidden=array(), weight=array(3, 2), targets=ids(below=3)),
    dict(hidden=array(4, 2), weight=array(3), targets=ids(4, below=3)),
    dict(hidden=array(4, 2), weight=array(3, 3), targets=ids(4, below=3)),
    dict(hidden=array(4, 2), weight=array(0, 2), targets=ids(4, below=1)),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=array(4)),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(3, below=3)),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(4, below=4, at_least=3)),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(4, below=0, at_least=-1)),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(4, below=3), normalizer=-1.0),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(4, below=3), chunk=0),
    dict(hidden=array(4, 2), weight=array(3, 2), targets=ids(4, below=3), chunk=2.0),
]
_SAME = {
    "chunk=512 -> chunk=513": "the result does not depend on the chunk",
    "_losses(logits, targets[rows], scale[rows], overwrite=True) -> _losses(logits, targets[rows], scale[rows], overwrite=False)":
        "only where the gradient of a chunk is put, beside its logits or in their place",
}


@case(
    "losses.linear_cross_entropy",
    bench=_BENCH,
    refuses=_BAD,
    also=[equals_linear_and_cross_entropy],
    equivalent=_SAME,
)
def linear_cross_entropy(draw):
    return _drawn(draw)


@case("losses.frozen_linear_cross_entropy", bench=_BENCH, refuses=_BAD, fixed={"weight": "it is not trained"}, also=[frozen_equals_trained],
      equivalent=_SAME | {
          "_chunked('frozen_linear_cross_entropy', hidden, weight, targets, ignore_index, normalizer, chunk, trained=False) -> "
          "_chunked('frozen_linear_cross_entropy', hidden, weight, targets, ignore_index, normalizer, chunk, trained=True)":
              "a gradient that nobody reads: work, and no result",
      })
def frozen_linear_cross_entropy(draw):
    return _drawn(draw)


def _drawn(draw):
    *leading, d = draw(dims(min_rank=1, max_rank=4))
    v = draw(size(1, 6 if draw.ordinary else 2))
    if draw(flag()):
        targets, ignored = token_ids(draw, *leading, below=v), draw(left_out(-100))
    else:
        targets, ignored = ids(*leading, below=v), draw(one_of(0, -1))
    return dict(hidden=array(*leading, d), weight=array(v, d), targets=targets, ignore_index=ignored,
                normalizer=draw(left_out(number(0.5, 9.0))), chunk=draw(left_out(integer(1, 8))))
