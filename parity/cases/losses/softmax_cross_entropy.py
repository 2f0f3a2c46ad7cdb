"""What softmax_cross_entropy is fed: tokens that count and that do not, none at all, more than a block; it equals the plain form."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, left_out, number, one_of
from parity.cases.losses.cross_entropy import token_ids


def equals_the_plain_form(side, logits, **options):
    """Loss by loss, cross_entropy gives the same."""
    fused, plain = (side.get(f"losses.{name}")(logits, **options) for name in ("softmax_cross_entropy", "cross_entropy"))
    if side.name == "numpy":
        (fused, fused_backward), (plain, plain_backward) = fused, plain
        for dloss in (np.array(1.0), np.array(2.0), np.array(-0.7)):
            yield f"dlogits for dloss = {dloss}", fused_backward(dloss), plain_backward(dloss)
    yield "loss", fused, plain


@case(
    "losses.softmax_cross_entropy",
    bench=dict(logits=array(1024, 8192), targets=ids(1024, below=8192)),
    refuses=[
        dict(logits=array(), targets=ids(below=3)),
        dict(logits=array(2, 0), targets=ids(2, below=1)),
        dict(logits=array(2, 3), targets=array(2)),
        dict(logits=array(2, 3), targets=ids(3, below=3)),
        dict(logits=array(2, 3), targets=ids(2, below=4, at_least=3)),
        dict(logits=array(2, 3), targets=ids(2, below=0, at_least=-1)),
        dict(logits=array(2, 3), targets=ids(2, below=3), normalizer=0.0),
    ],
    also=[equals_the_plain_form],
)
def softmax_cross_entropy(draw):
    shape = draw(dims(min_rank=1, max_rank=4, min_last=1))
    *leading, v = draw(one_of(shape, shape, shape, (3, 20000)))
    if draw(flag()):
        targets, ignored = token_ids(draw, *leading, below=v), draw(left_out(-100))
    else:
        targets, ignored = ids(*leading, below=v), draw(one_of(0, -1))
    return dict(logits=array(*leading, v), targets=targets, ignore_index=ignored, normalizer=draw(left_out(number(0.5, 9.0))))
