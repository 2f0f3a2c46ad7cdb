"""What bce_with_logits is fed: labels and probabilities, a weight of the positive entries that broadcasts or none, each reduction.

Now and then there are more entries than fit into a block."""

from parity.cases import array, case, dims, left_out, maybe, one_of


@case(
    "losses.bce_with_logits",
    fixed={"pos_weight": "chosen, not learned"},
    refuses=[
        dict(logits=array(2, 3), targets=array(3)),
        dict(logits=array(2, 3), targets=array(2, 3), pos_weight=array(2)),
        dict(logits=array(3), targets=array(3), pos_weight=array(2, 3)),
        dict(logits=array(3), targets=array(3), reduction="batchmean"),
    ],
)
def bce_with_logits(draw):
    shape = draw(dims(min_rank=0, max_rank=4))
    shape = draw(one_of(shape, shape, shape, (3, 12000)))
    weight = array(*draw(one_of(shape, shape[-1:], [1 if i % 2 else n for i, n in enumerate(shape)])), low=0.5, high=3.0)
    return dict(logits=array(*shape), targets=draw(one_of(array(*shape, low=0.0, high=1.0), array(*shape, low=1.0, high=1.0))),
                pos_weight=draw(left_out(maybe(weight))), reduction=draw(left_out(one_of("none", "sum", "mean"))))
