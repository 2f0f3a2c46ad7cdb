"""What linear is fed: any (..., I), a weight (O, I), a bias or none; and what it refuses."""

from parity.cases import array, case, dims, ids, left_out, maybe, size


@case(
    "ops.linear",
    bench=dict(x=array(1024, 768), weight=array(3072, 768, scale=0.03), bias=array(3072)),
    refuses=[
        dict(x=array(2, 3), weight=array(4, 2)),
        dict(x=array(2, 3), weight=array(3)),
        dict(x=array(), weight=array(4, 3)),
        dict(x=array(2, 3), weight=array(4, 3), bias=array(3)),
        dict(x=array(2, 3), weight=array(4, 3), bias=array(1, 4)),
        dict(x=ids(2, 3, below=4), weight=array(4, 3)),
    ],
)
def linear(draw):
    *batch, inputs = draw(dims(max_rank=4))
    outputs = draw(size(0, 6))
    weight = draw(array(outputs, inputs, scale=max(inputs, 1) ** -0.5))
    return dict(x=draw(array(*batch, inputs)), weight=weight, bias=draw(left_out(maybe(array(outputs)))))
