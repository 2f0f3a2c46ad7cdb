"""What batch_norm is fed: (N, C) and images, both modes, with and without parameters and running statistics."""

import math

from parity.cases import array, case, dims, flag, left_out, maybe, number, one_of


@case(
    "ops.batch_norm",
    bench=dict(x=array(32, 64, 28, 28), weight=array(64), bias=array(64)),
    fixed={
        "running_mean": "a statistic of earlier batches, not a parameter",
        "running_var": "a statistic of earlier batches, not a parameter",
    },
    detached=("running_mean", "running_var"),
    skip={"nonfinite": "torch's kernels disagree: an infinite weight gives NaN on the CPU, which folds μ into the bias, and ±∞ on CUDA"},
    refuses=[
        dict(x=array(3)),
        dict(x=array(3, 2), weight=array(3)),
        dict(x=array(3, 2), bias=array(2, 1)),
        dict(x=array(3, 2), running_mean=array(3), running_var=array(3)),
        dict(x=array(3, 2), running_mean=array(2)),
        dict(x=array(3, 2), running_var=array(2)),
        dict(x=array(3, 2), training=False),
        dict(x=array(1, 2)),
        dict(x=array(1, 2, 1)),
        dict(x=array(0, 2, 3)),
        dict(x=array(3, 2), momentum=1.5),
        dict(x=array(3, 2), eps=-1.0),
    ],
)
def batch_norm(draw):
    training = draw(flag())
    rows, channels, *positions = draw(dims(min_rank=2, max_rank=5))
    if training and rows * math.prod(positions) < 2:
        rows, positions = 3 if draw.ordinary else 2, [1] * len(positions)
    known = not training or draw(flag())
    statistics = dict(running_mean=array(channels), running_var=array(channels, low=0.5, high=2.0)) if known else {}
    return dict(x=array(rows, channels, *positions, scale=draw(one_of(1.0, 1e-3))), weight=draw(left_out(maybe(array(channels)))),
                bias=draw(left_out(maybe(array(channels)))), **statistics,
                training=training if not training else draw(left_out(True)),
                momentum=draw(left_out(number(0.0, 1.0))), eps=draw(left_out(one_of(1e-5, 1e-3, 0.1))))
