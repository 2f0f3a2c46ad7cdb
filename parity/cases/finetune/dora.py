"""What the DoRA functions are fed: any ranks and widths, rows cut into several strips, rows and norms of zero."""

import numpy as np

from parity.cases import array, case, dims, integer, number, one_of, size


def zero_rows(side, lora_A, lora_B, *, weight, scaling):
    """A row that A and B bring to exactly zero has norm 0 and gives no gradient."""
    if 0 in weight.shape or scaling == 0:
        return
    norm = side.get("finetune.dora_norm")
    lora_B, weight = lora_B + 0, weight + 0
    lora_B[0], weight[0] = 0, 0
    if side.name == "numpy":
        n, backward = norm(lora_A, lora_B, weight=weight, scaling=scaling)
        yield "norm of a zero row", n[0], 0.0
        yield "its gradient", backward(np.ones_like(n))[1][0], np.zeros(lora_B.shape[1])
    else:
        lora_B.requires_grad_()
        n = norm(lora_A, lora_B, weight=weight, scaling=scaling)
        n.sum().backward()
        yield "norm of a zero row", n[0], 0.0
        yield "its gradient", lora_B.grad[0], np.zeros(lora_B.shape[1])


def by_strips(side, lora_A, lora_B, *, weight, scaling):
    """A weight that comes in strips has the norms, and gives the gradients, of one that is there as a whole."""
    if 0 in weight.shape:
        return
    cuts = [slice(0, 1), slice(1, len(weight))]

    def strips():
        yield from ((rows, weight[rows]) for rows in cuts)

    norm = side.get("finetune.dora_norm")
    if side.name == "numpy":
        want, backward = norm(lora_A, lora_B, weight=weight, scaling=scaling)
        got, strips_backward = norm(lora_A, lora_B, weight=strips, scaling=scaling)
        gradients = zip(strips_backward(got), backward(got), strict=True)
        yield from (("gradient by strips", mine, whole) for mine, whole in gradients)
    else:
        want, got = (norm(lora_A, lora_B, weight=each, scaling=scaling) for each in (weight, strips))
    yield "norm by strips", got, want


@case(
    "finetune.dora_norm",
    fixed={"weight": "the frozen base"},
    also=[zero_rows, by_strips],
    bench=dict(lora_A=array(8, 768), lora_B=array(768, 8), weight=array(768, 768), scaling=2.0),
    refuses=[
        dict(lora_A=array(2), lora_B=array(4, 2), weight=array(4, 3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4), weight=array(4, 3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), weight=array(3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), weight=array(4, 4), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(5, 2), weight=array(4, 3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 1), weight=array(4, 3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), weight=array(4, 3), scaling=float("inf")),
    ],
)
def dora_norm(draw):
    rank, outputs, width = draw(one_of(0, 1, 2, 5)), draw(size(0)), draw(size(0))
    if not draw.edges and draw(integer(0, 4)) == 0:
        outputs, width = 5, 1 << 14                    # strips of two rows, the last of one
    return dict(
        lora_A=draw(array(rank, width)), lora_B=draw(array(outputs, rank)), weight=draw(array(outputs, width)),
        scaling=draw(one_of(0.0, 2.0, -0.5, number(0, 3))),
    )


@case(
    "finetune.dora_delta",
    bench=dict(plain=array(1024, 768), low_rank=array(1024, 768), magnitude=array(768), norm=array(768, low=0.5, high=2.0)),
    refuses=[
        dict(plain=array(), low_rank=array(), magnitude=array(1), norm=array(1)),
        dict(plain=array(2, 3), low_rank=array(3), magnitude=array(3), norm=array(3)),
        dict(plain=array(2, 3), low_rank=array(2, 3), magnitude=array(2), norm=array(3)),
        dict(plain=array(2, 3), low_rank=array(2, 3), magnitude=array(3), norm=array(1)),
    ],
)
def dora_delta(draw):
    *lead, width = draw(dims())
    if not draw.edges and draw(integer(0, 4)) == 0:
        lead, width = [5], 1 << 14                     # blocks of two rows, the last of one
    norm = array(width, low=0.5, high=2.0) if draw.ordinary else draw(one_of(array(width), array(width, scale=0.0, hostile=False)))
    return dict(plain=draw(array(*lead, width)), low_rank=draw(array(*lead, width)), magnitude=draw(array(width)), norm=norm)
