"""What cross_entropy is fed: every option alone and together, one class, no tokens, tokens that do not count."""

import math

import numpy as np

from parity.cases import array, case, dims, flag, ids, integer, left_out, maybe, number, one_of


def token_ids(draw, *shape, below):
    """Class ids in [0, below) of which about every fourth is the default ignore_index, -100."""
    drawn = [-100 if draw(integer(0, 3)) == 3 else draw(integer(0, below - 1)) for _ in range(math.prod(shape))]
    return np.array(drawn, dtype=np.int64).reshape(shape)


@case(
    "losses.cross_entropy",
    bench=dict(logits=array(1024, 8192), targets=ids(1024, below=8192)),
    fixed={"class_weights": "chosen, not learned"},
    refuses=[
        dict(logits=array(), targets=ids(below=3)),
        dict(logits=array(2, 0), targets=ids(2, below=1)),
        dict(logits=array(2, 3), targets=array(2)),
        dict(logits=array(2, 3), targets=ids(3, below=3)),
        dict(logits=array(2, 3), targets=ids(2, 1, below=3)),
        dict(logits=array(2, 3), targets=ids(2, below=4, at_least=3)),
        dict(logits=array(2, 3), targets=ids(2, below=0, at_least=-1)),
        dict(logits=array(2, 3), targets=ids(2, below=3), class_weights=array(2)),
        dict(logits=array(2, 3), targets=ids(2, below=3), reduction="average"),
        dict(logits=array(2, 3), targets=ids(2, below=3), reduction="sum", normalizer=2.0),
        dict(logits=array(2, 3), targets=ids(2, below=3), normalizer=0.0),
        dict(logits=array(2, 3), targets=ids(2, below=3), label_smoothing=1.5),
        dict(logits=array(2, 3), targets=ids(2, below=3), label_smoothing=-0.1),
        dict(logits=array(2, 3), targets=ids(2, below=3), smoothing="other"),
        dict(logits=array(2, 3), targets=ids(2, below=3), z_loss=-1.0),
    ],
    equivalent={"max(v - 1, 1) -> max(v - 1, 2)": "it matters to one class alone, whose log p is 0 whatever its share"},
)
def cross_entropy(draw):
    shape = draw(dims(min_rank=1, max_rank=3, min_last=1))
    *leading, v = draw(one_of(shape, shape, shape, (3, 20000)))         # the last: more than a block
    if draw(flag()):
        targets, ignored = token_ids(draw, *leading, below=v), draw(left_out(-100))
    else:
        targets, ignored = ids(*leading, below=v), draw(one_of(0, -1))
    how = draw(one_of(dict(), dict(), dict(normalizer=draw(number(0.5, 9.0))), dict(reduction="sum"), dict(reduction="none")))
    return dict(logits=array(*leading, v), targets=targets, ignore_index=ignored, **how,
                class_weights=draw(left_out(maybe(array(v, low=0.5, high=2.0)))),
                label_smoothing=draw(left_out(one_of(0.0, 0.1, 1.0))), smoothing=draw(left_out(one_of("all", "others"))),
                z_loss=draw(left_out(one_of(1e-4, 0.5))))
